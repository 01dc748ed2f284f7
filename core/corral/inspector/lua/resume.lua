-- Resume the queue: its jobs may start again (wire 6.14).
--
-- KEYS  1 `<prefix>:<queue>:`   2 the audit's stream: see audit_entry.lua
-- ARGV  1 offset_ms   2 limit: how many ids in `paused`, where BullMQ 5 keeps them, one call moves
--         back to `wait`
--       then the arguments of audit_entry.lua
-- Returns {{resumed, left}, audited}; resumed: 1 if this call resumed the queue, 0 if it was not
--         paused; left: how many ids are still in `paused`.

-- @include queue_state.lua
-- @include audit_entry.lua

local aside = read('LRANGE', base .. 'paused', 0, ARGV[2] - 1) or {}
local wrong = first_damaged('meta', #aside > 0 and 'wait' or nil)
if wrong then return refusal(wrong) end
local resumed = call('HDEL', base .. 'meta', 'paused')
meta[1] = false
if #aside > 0 then
  call('LTRIM', base .. 'paused', #aside, -1)
  for from = 1, #aside, 5000 do -- they are older than the jobs in `wait`: put them in front, in their order
    call('RPUSH', base .. 'wait', unpack(aside, from, math.min(from + 4999, #aside)))
  end
end
if call('EXISTS', base .. 'wait', base .. 'prioritized') > 0 then
  signal_work()
elseif not first_damaged('delayed', 'marker') then
  signal_delayed()
end
if resumed == 1 then redis.pcall('XADD', events, '*', 'event', 'resumed') end
if previous_entry == '' and (resumed == 1 or #aside > 0) then
  write_entry(nil, {paused = resumed == 1}, {paused = false})
end
return {{resumed, #aside > 0 and call('LLEN', base .. 'paused') or 0}, audited}
