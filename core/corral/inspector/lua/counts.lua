-- How many jobs are in which state.
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms
-- Returns {sizes, quarantined, limits, wrongs}
--         sizes: of wait, paused, active, prioritized, delayed, waiting-children, completed, failed; -1 of a damaged one
--         quarantined: how many ids are there; -1 where it is damaged   limits: paused, concurrency, max, duration
--         wrongs: what is damaged of the queue's own keys

-- @include opening.lua
-- @include sizes.lua

return {sizes(), quarantined(), limits(), wrongs()}
