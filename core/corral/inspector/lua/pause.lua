-- Let no job of the queue start (wire 6.14). What runs goes on.
--
-- What waits stays where it is only if BullMQ 6 says that it uses the queue, and no BullMQ 5 has put anything aside. Else it
-- is put aside as BullMQ 5 does, whose `resume` would overwrite it otherwise (trap T1); all others' `resume` bring it back.
-- Where the queue is paused already, that is made good.
--
-- KEYS  1 `<prefix>:<queue>:`   2, and the end of ARGV: see told.lua
-- ARGV  1 offset_ms
-- Returns {paused, told}: 1 if it was paused by this call, 0 if it was already.

-- @include opening.lua
-- @include told.lua
-- @include put_aside.lua

local wrong = broken('meta')
if wrong then return refusal(wrong) end
if not meta[1] then call('HSET', base .. 'meta', 'paused', 1) end -- the first write: one that a full store refuses
local major = tonumber(string.match(call('HGET', base .. 'meta', 'version') or '', '^bullmq:(%d+)'))
local is_aside = call('EXISTS', base .. 'paused') == 1
if (is_aside or not major or major < 6) and not broken('wait', 'paused') then put_aside() end
if meta[1] then return {0, told} end
if not broken('marker') then call('DEL', base .. 'marker') end -- else it is a job whose id is `marker` (trap T9)
redis.pcall('XADD', events, '*', 'event', 'paused')
tell(nil, {paused = false}, {paused = true})
return {1, told}
