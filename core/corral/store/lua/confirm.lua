-- Confirm that a job is about to start which stalled so often that the next time is its last. A worker that dies before
-- has not run it, and costs it nothing.
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms (not used: every script of its kind takes it)   2 id
-- Returns nothing of interest.

redis.pcall('SREM', 'corral:' .. KEYS[1] .. 'unconfirmed', ARGV[2])
