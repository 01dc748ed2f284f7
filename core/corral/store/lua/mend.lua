-- Move keys of a wrong type from the names of the queue's own keys into the quarantine, see
-- damage.lua.
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms
-- Returns reports, see damage.lua.
-- Errors  DAMAGED  `meta`, `wait` or `active` has a wrong type

local base = KEYS[1]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000) + ARGV[1]
-- @include damage.lua

repairs().mend()
if damage.broken then return redis.error_reply(damage.broken) end
return damage.reports
