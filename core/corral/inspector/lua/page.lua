-- Read a page of the jobs in one container: those that run next first, or those that finished last
-- first.
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms   2 container   3 start   4 limit
--       5 '1': the newest first, in every container; or ''
--       6 '1', with the container `delayed`: only jobs that have failed attempts; or ''
-- Returns {now_ms, total, jobs, left, more}; jobs: rows {id, flat hash, due score or ''}; an id
--         without a hash is skipped (wire 6.25); left: one text for each job whose key is not a
--         hash; more: 1 if not all jobs were looked at for failed attempts, else 0.
--         Jobs that BullMQ 5 has moved to `paused` are listed after those in `wait`: they are
--         older, and run before them (wire 6.14).

-- @include queue_state.lua

local container, start, newest_first = ARGV[2], tonumber(ARGV[3]), ARGV[5] == '1'
local set, last = base .. container, ARGV[3] + ARGV[4] - 1
local ids, total, more = {}, nil, false
local wrong = first_damaged(container)
if wrong then return refusal(wrong) end

-- Append the ids at the indexes `from` to `to` of several lists, as if they were one list, to
-- `ids`.
local function add_ids(lists, from, to)
  local before = 0
  for _, name in ipairs(lists) do
    local length = call('LLEN', base .. name)
    if to >= before and from < before + length then
      local found = call('LRANGE', base .. name, math.max(from - before, 0), to - before)
      for _, id in ipairs(found) do ids[#ids + 1] = id end
    end
    before = before + length
  end
end

if ARGV[6] == '1' then
  -- @include retrying.lua
  local retrying
  retrying, more = find_retrying()
  total, ids = #retrying, {unpack(retrying, start + 1, math.min(last + 1, #retrying))}
elseif container == 'wait' or container == 'active' then
  local lists = container == 'wait' and not first_damaged('paused') and {'wait', 'paused'} or {container}
  total = 0
  for _, name in ipairs(lists) do total = total + call('LLEN', base .. name) end
  if newest_first then
    add_ids(lists, start, last)
  else
    add_ids(lists, math.max(total - 1 - last, 0), total - 1 - start)
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
return {now, total, jobs, left, more and 1 or 0}
