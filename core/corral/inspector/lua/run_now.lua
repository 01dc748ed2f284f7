-- Let delayed jobs wait from now on (wire 6.15).
--
-- KEYS  1 `<prefix>:<queue>:`   2, and the end of ARGV: see told.lua
-- ARGV  1 offset_ms   2 limit: with no ids, how many are taken, the next due first   3 skip: after so many   4.. ids
-- Returns {codes, told}, one code per job: 1 it waits; -1 no such job; -3 it is not delayed; a text says what is damaged, and
--         nothing of that job is changed.

-- @include opening.lua
-- @include told.lua

local wrong = broken('delayed')
if wrong then return refusal(wrong) end

local ids = {}
if #ARGV > 3 then
  for i = 4, #ARGV do ids[#ids + 1] = ARGV[i] end
else
  ids = call('ZRANGE', base .. 'delayed', ARGV[3], ARGV[3] + ARGV[2] - 1)
end
local codes, changed = {}, {}
local after
for i, id in ipairs(ids) do
  if call('EXISTS', base .. id) == 0 then
    call('ZREM', base .. 'delayed', id)
    codes[i] = -1
  elseif not call('ZSCORE', base .. 'delayed', id) then
    codes[i] = -3
  else
    local way
    way, wrong = way_back(base .. id)
    codes[i] = wrong or 1
    if not wrong then
      call('ZREM', base .. 'delayed', id)
      after = put_back(id, way, 'delayed')
      call('HSET', base .. id, 'delay', 0)
      changed[#changed + 1] = id
    end
  end
end
if #changed > 0 then signal_work() end
if #ARGV > 3 then
  tell_jobs(ids, changed, 'delayed', after)
elseif #changed > 0 then
  tell(nil, 'delayed', 'waiting', #changed)
end
return {codes, told}
