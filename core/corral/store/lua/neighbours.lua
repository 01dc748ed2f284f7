-- What tells which other clients use a queue, and how (wire 2.3, 6.14).
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms (not used: every script of its kind takes it)
-- Returns {version, aside, limited}: of the client that connected last, or ''; 1 where jobs stand in BullMQ 5's `paused`,
--         else 0; 1 where the queue has a rate limit for all workers, else 0.

local meta = redis.pcall('HMGET', KEYS[1] .. 'meta', 'version', 'max')
local aside = redis.pcall('LLEN', KEYS[1] .. 'paused')
return {meta[1] or '', type(aside) == 'number' and aside > 0 and 1 or 0, meta[2] and 1 or 0}
