-- Confirm that a job is about to start that has stalled so often that its next stall is the last
-- one. If the worker dies before this call, it has not run the job, and no stall is counted.
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms (not used: `QueueStore.operate` sends it to every script)   2 id
-- Returns a number without meaning.

redis.pcall('SREM', 'corral:' .. KEYS[1] .. 'unconfirmed', ARGV[2])
