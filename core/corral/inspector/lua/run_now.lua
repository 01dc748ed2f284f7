-- Let delayed jobs wait from now on (wire 6.15).
--
-- KEYS  1 `<prefix>:<queue>:`   2, and the end of ARGV: see told.lua
-- ARGV  1 offset_ms   2 limit: with no ids, how many are taken, the next due first   3.. ids
-- Returns {codes, told}, one code per job: 1 it waits; -1 no such job; -3 it is not delayed.

-- @include opening.lua
-- @include told.lua

local ids = {}
if #ARGV > 2 then
  for i = 3, #ARGV do ids[#ids + 1] = ARGV[i] end
else
  ids = call('ZRANGE', base .. 'delayed', 0, ARGV[2] - 1)
end
local codes, changed = {}, {}
local after
for i, id in ipairs(ids) do
  local held = call('ZREM', base .. 'delayed', id) == 1
  if call('EXISTS', base .. id) == 0 then
    codes[i] = -1
  elseif not held then
    codes[i] = -3
  else
    after = put_back(id, 'delayed')
    call('HSET', base .. id, 'delay', 0)
    codes[i] = 1
    changed[#changed + 1] = id
  end
end
if #changed > 0 then signal_work() end
if #ARGV > 2 then
  tell_jobs(ids, changed, 'delayed', after)
elseif #changed > 0 then
  tell(nil, 'delayed', 'waiting', #changed)
end
return {codes, told}
