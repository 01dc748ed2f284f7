-- How the jobs failed that failed last.
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms   2 looks: how many are looked at
-- Returns {id, failed at (ms), the beginning of its reason} each, the newest first.

-- @include opening.lua
-- @include failing.lua

return last_failures(tonumber(ARGV[2]), math.huge)
