-- Change how many jobs of the queue run at once, and how many start in a while (wire 6.18, 6.19).
--
-- KEYS  1 `<prefix>:<queue>:`   2, and the end of ARGV: see told.lua
-- ARGV  1 offset_ms   then pairs: field of `meta` ('concurrency', 'max', 'duration'), value; '' takes it away
-- Returns {0, told}. What waits is looked at again: a wider limit may let it start.

-- @include opening.lua
-- @include told.lua

local wrong = broken('meta')
if wrong then return refusal(wrong) end

local before, after, differs = {}, {}, false
for i = 2, #ARGV, 2 do
  local field, held = ARGV[i], call('HGET', base .. 'meta', ARGV[i])
  before[field] = held and (tonumber(held) or held) or cjson.null
  after[field] = ARGV[i + 1] == '' and cjson.null or tonumber(ARGV[i + 1])
  differs = differs or before[field] ~= after[field]
  if ARGV[i + 1] == '' then
    call('HDEL', base .. 'meta', field)
  else
    call('HSET', base .. 'meta', field, ARGV[i + 1])
  end
end
meta[2] = call('HGET', base .. 'meta', 'concurrency')
if call('EXISTS', base .. 'wait', base .. 'prioritized') > 0 then signal_work() end
if differs then tell(nil, before, after) end
return {0, told}
