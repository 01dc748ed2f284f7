-- Some jobs of one container, in the order that matters: what runs next first, what finished last first.
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms   2 container   3 start   4 limit   5 '1': the newest first, whatever the container; or ''
-- Returns {now_ms, total, jobs, left}; jobs: {id, flat hash, due score or ''} each. An id without a hash is skipped (wire
--         6.25); left: what is damaged of those whose key is no hash.
--         What BullMQ 5 has put into `paused` follows what waits: it is older, and runs before it (wire 6.14).

-- @include opening.lua

local container, start, newest_first = ARGV[2], tonumber(ARGV[3]), ARGV[5] == '1'
local set, last = base .. container, ARGV[3] + ARGV[4] - 1
local ids, total = {}, nil
local wrong = broken(container)
if wrong then return refusal(wrong) end

-- The ids of some places of lists that stand side by side, from the left.
local function places(lists, from, to)
  local before = 0
  for _, name in ipairs(lists) do
    local length = call('LLEN', base .. name)
    if to >= before and from < before + length then
      for _, id in ipairs(call('LRANGE', base .. name, math.max(from - before, 0), to - before)) do ids[#ids + 1] = id end
    end
    before = before + length
  end
end

if container == 'wait' or container == 'active' then
  local lists = container == 'wait' and not broken('paused') and {'wait', 'paused'} or {container}
  total = 0
  for _, name in ipairs(lists) do total = total + call('LLEN', base .. name) end
  if newest_first then
    places(lists, start, last)
  else
    places(lists, math.max(total - 1 - last, 0), total - 1 - start)
    for i = 1, math.floor(#ids / 2) do ids[i], ids[#ids + 1 - i] = ids[#ids + 1 - i], ids[i] end
  end
else
  total = call('ZCARD', set)
  newest_first = newest_first or container == 'completed' or container == 'failed'
  ids = call(newest_first and 'ZREVRANGE' or 'ZRANGE', set, start, last)
end
local jobs, left = {}, {}
for _, id in ipairs(ids) do
  local hash = redis.pcall('HGETALL', base .. id)
  if hash.err then
    left[#left + 1] = damage(base .. id, 'hash')
  elseif #hash > 0 then
    jobs[#jobs + 1] = {id, hash, container == 'delayed' and call('ZSCORE', set, id) or ''}
  end
end
return {now, total, jobs, left}
