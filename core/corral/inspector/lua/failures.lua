-- Read the reasons of the jobs that failed last.
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms   2 looks: how many jobs are read
-- Returns rows {id, failed at (ms), the beginning of the reason}, the newest first.

-- @include queue_state.lua
-- @include last_failures.lua

return last_failures(tonumber(ARGV[2]), math.huge)
