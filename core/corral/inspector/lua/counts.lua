-- Count the jobs in each state.
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms
-- Returns {sizes, quarantined, limits, damaged, retrying, more}
--         sizes: of wait, paused, active, prioritized, delayed, waiting-children, completed,
--           failed; -1 for a damaged key
--         quarantined: how many ids are in quarantine; -1 if that key is damaged
--         limits: paused, concurrency, max, duration
--         damaged: one text for each damaged key of the queue
--         retrying: how many of the delayed jobs that are due first have failed attempts
--         more: 1 if there are more delayed jobs than were looked at, else 0

-- @include queue_state.lua
-- @include sizes.lua
-- @include retrying.lua

local retrying, more = find_retrying()
return {sizes(), quarantine_size(), limits(), damaged_keys(), #retrying, more and 1 or 0}
