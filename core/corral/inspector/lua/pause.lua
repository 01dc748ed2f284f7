-- Let no job of the queue start (wire 6.14). What runs goes on, what waits stays where it is.
--
-- KEYS  1 `<prefix>:<queue>:`   2, and the end of ARGV: see told.lua
-- ARGV  1 offset_ms
-- Returns {paused, told}: 1 if it was paused by this call, 0 if it was already.

-- @include opening.lua
-- @include told.lua

local wrong = broken('meta')
if wrong then return refusal(wrong) end
if meta[1] then return {0, told} end
call('HSET', base .. 'meta', 'paused', 1)
if not broken('marker') then call('DEL', base .. 'marker') end -- else it is a job whose id is `marker` (trap T9)
redis.pcall('XADD', events, '*', 'event', 'paused')
tell(nil, {paused = false}, {paused = true})
return {1, told}
