-- Confirm that jobs are about to start which stalled so often that the next time is their last. A worker that dies before
-- has not run them, and costs them nothing.
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms (not used: every script of its kind takes it)   2.. ids
-- Returns nothing of interest.

redis.pcall('SREM', 'corral:' .. KEYS[1] .. 'unconfirmed', unpack(ARGV, 2))
