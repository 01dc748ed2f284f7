-- The figures of the last minutes, as add_minutes.lua keeps them.
--
-- KEYS  1 `corral:<prefix>:<queue>:minutes`
-- ARGV  1 offset_ms   2 how many minutes, this one included   3 kept
-- Returns {this minute, {text of each minute's field, the oldest first; false without one}}

local clock = redis.call('TIME')
local now = math.floor((clock[1] * 1000 + math.floor(clock[2] / 1000) + ARGV[1]) / 60000)
local slots = {}
for minute = now - ARGV[2] + 1, now do slots[#slots + 1] = minute % ARGV[3] end
return {now, redis.call('HMGET', KEYS[1], unpack(slots))}
