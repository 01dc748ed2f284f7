-- Let the queue's jobs start again (wire 6.14).
--
-- KEYS  1 `<prefix>:<queue>:`   2, and the end of ARGV: see told.lua
-- ARGV  1 offset_ms   2 limit: how many ids that BullMQ 5 has put aside are brought back in one call
-- Returns {{resumed, left}, told}: 1 if it was resumed by this call, 0 if it was not paused; how many ids are still aside.

-- @include opening.lua
-- @include told.lua

local aside = read('LRANGE', base .. 'paused', 0, ARGV[2] - 1) or {}
local wrong = broken('meta', #aside > 0 and 'wait' or nil)
if wrong then return refusal(wrong) end
local resumed = call('HDEL', base .. 'meta', 'paused')
meta[1] = false
if #aside > 0 then
  call('LTRIM', base .. 'paused', #aside, -1)
  for from = 1, #aside, 5000 do -- they are older than what waits: to the front, in their order
    call('RPUSH', base .. 'wait', unpack(aside, from, math.min(from + 4999, #aside)))
  end
end
if call('EXISTS', base .. 'wait', base .. 'prioritized') > 0 then
  signal_work()
elseif not broken('delayed', 'marker') then
  signal_delayed()
end
if resumed == 1 then redis.pcall('XADD', events, '*', 'event', 'resumed') end
if earlier == '' and (resumed == 1 or #aside > 0) then tell(nil, {paused = resumed == 1}, {paused = false}) end
return {{resumed, #aside > 0 and call('LLEN', base .. 'paused') or 0}, told}
