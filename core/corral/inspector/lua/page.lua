-- Some jobs of one container, in the order that matters: what runs next first, what finished last first.
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms   2 container   3 start   4 limit
-- Returns {now_ms, total, jobs}; jobs: {id, flat hash, due score or ''} each. An id without a hash is skipped (wire 6.25).

-- @include opening.lua

local container, start = ARGV[2], tonumber(ARGV[3])
local set, last = base .. container, ARGV[3] + ARGV[4] - 1
local ids, total = {}, nil
if container == 'wait' or container == 'active' then
  total = call('LLEN', set)
  local found = call('LRANGE', set, -last - 1, -start - 1)
  for i = #found, 1, -1 do ids[#ids + 1] = found[i] end
else
  total = call('ZCARD', set)
  local newest_first = container == 'completed' or container == 'failed'
  ids = call(newest_first and 'ZREVRANGE' or 'ZRANGE', set, start, last)
end
local jobs = {}
for _, id in ipairs(ids) do
  local hash = call('HGETALL', base .. id)
  if #hash > 0 then jobs[#jobs + 1] = {id, hash, container == 'delayed' and call('ZSCORE', set, id) or ''} end
end
return {now, total, jobs}
