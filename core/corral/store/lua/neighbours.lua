-- Which other clients use a queue, and how (wire 2.3, 6.14).
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms (not used: `QueueStore.operate` sends it to every script)
-- Returns {version, aside, limited}: version of the client that connected last, or ''; aside, 1
--         where BullMQ 5 has put jobs into `paused`, else 0; limited, 1 where the queue has a rate
--         limit for all workers, else 0.

local meta = redis.pcall('HMGET', KEYS[1] .. 'meta', 'version', 'max')
local aside = redis.pcall('LLEN', KEYS[1] .. 'paused')
return {meta[1] or '', type(aside) == 'number' and aside > 0 and 1 or 0, meta[2] and 1 or 0}
