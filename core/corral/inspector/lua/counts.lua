-- Count the jobs in each state.
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms
-- Returns {sizes, quarantined, limits, damaged}
--         sizes: of wait, paused, active, prioritized, delayed, waiting-children, completed,
--           failed; -1 for a damaged key
--         quarantined: how many ids are in quarantine; -1 if that key is damaged
--         limits: paused, concurrency, max, duration
--         damaged: one text for each damaged key of the queue

-- @include queue_state.lua
-- @include sizes.lua

return {sizes(), quarantine_size(), limits(), damaged_keys()}
