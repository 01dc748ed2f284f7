-- Ensure a job scheduler (wire 6.21). One with the same definition and a live iteration is left
-- exactly as it is.
--
-- Afterwards there are at most two iterations that have not started: one that is due, and one to
-- come.
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms   2 id   3 every_ms, '' for a pattern   4 pattern   5 tz
--       6 ticks_json, see iterate.lua
--       7 name   8 data   9 opts of its jobs, JSON text
--       10 why: `asked` by a program; `start` of a worker that declares it; `check`: make only what
--         is gone
-- Returns {word, next_ms}
--         untouched   it has the same definition and is alive
--         different   (check) it has another definition and is alive; it is left as it is
--         removed     (start, check) an operator has removed it, see unschedule.lua; it is left so
--                     until `asked`. A start makes it again where it was pruned, or where its
--                     declaration differs from the removed one
--         made        there was none
--         changed     it had another definition; a tick that is due stays and runs, a coming one is
--                     replaced
--         resumed     its next iteration, or some of its keys, were missing, and are there again
--         unknown     there were too few ticks; next_ms is the store's time, from which to compute
--                     others
-- Errors  DAMAGED <key> is a <type>, not a <type>; or is no counter. Nothing was changed

local base, schedule, every, pattern, tz = KEYS[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local ticks_json, name, data, opts_text, why = ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000) + ARGV[1]
local meta = redis.pcall('HMGET', base .. 'meta', 'paused', 'concurrency', 'opts.maxLenEvents')
local max_events = not meta.err and meta[3] and string.find(meta[3], '^%d+$') and meta[3] or '10000'
-- @include events.lua
-- Damage that can be repaired is left to the stalled check, which reports it.
local wrong = repairs().first_wrong('repeat') or repairs().wrong_type(base .. 'repeat:' .. schedule, 'hash')
  or repairs().first_wrong('delayed', 'prioritized', 'wait', 'active', 'paused', 'waiting-children', 'completed', 'failed',
    'meta', 'id', 'pc', 'marker', 'events')
for _, name in ipairs({'id', 'pc'}) do
  local number = not wrong and call('GET', base .. name)
  if number and not (string.find(number, '^%-?%d+$') and #number < 19) then wrong = base .. name .. ' is no counter' end
end
if wrong then return redis.error_reply('DAMAGED ' .. wrong) end
local queue, is_paused = base, meta[1]
-- @include wait_list.lua
-- @include iterate.lua
-- @include iteration_place.lua

local marks = 'corral:' .. base .. 'removed-schedules'
local mark = call('HGET', marks, schedule)
local as_removed = table.concat({'remove', ARGV[3], pattern, tz}, '\n')
if mark and (why == 'check' or (why == 'start' and mark == as_removed)) then return {'removed', 0} end

-- How many ids of a list are read from each end: reading a million takes tens of milliseconds. A
-- run behind more ids than that counts as waiting, at the price of one run too many.
local LOOKS = 20000

local key = base .. 'repeat:' .. schedule
local tick = tonumber(call('ZSCORE', base .. 'repeat', schedule))
local found = call('HMGET', key, 'every', 'pattern', 'tz', 'name', 'data', 'opts', 'ic', 'offset', 'limit', 'endDate')
local recorded = found[1] or found[2]
local current = tick and iteration_id(schedule, tick)
local kind = current and call('TYPE', base .. current).ok
local place, further
if current then place, further = container_of(current, LOOKS) end
if further then place = 'wait' end
-- Whether the next iteration is made when this one is fetched, or by the worker that has fetched
-- it.
local alive = place and place ~= 'completed' and place ~= 'failed' and kind == 'hash'
  and call('HGET', base .. current, 'rjk') == schedule

local rule = {every = tonumber(found[1]), pattern = found[2], tz = found[3]}
local made = tonumber(found[7])
if alive and not recorded then -- the iteration still has the rule
  local known, opts = pcall(cjson.decode, call('HGET', base .. current, 'opts') or '')
  if known and type(opts) == 'table' and type(opts['repeat']) == 'table' then rule = opts['repeat'] end
  made = tonumber(rule.count)
end
local timing = (every and tonumber(rule.every) == every) or (not every and rule.pattern == pattern and rule.tz == tz)
local same = recorded and timing and found[4] == name and (found[5] or '{}') == data and found[6] == opts_text
  and not found[9] and not found[10]
if alive and recorded then
  if same and mark then call('HDEL', marks, schedule) end
  if same then return {'untouched', tick} end
  if why == 'check' then return {'different', tick} end
end

-- From here on the scheduler is written. First, find its other iterations: they make no successors,
-- and exist because the definition changed while they waited, or because keys were lost.
local start = 'repeat:' .. schedule .. ':'

local function own(ids)
  local jobs = {}
  for i = 1, #ids do
    local id = ids[i]
    if string.sub(id, 1, #start) == start and string.find(id, '^%d+$', #start + 1)
      and call('TYPE', base .. id).ok == 'hash' then
      local job = call('HMGET', base .. id, 'rjk', 'ats')
      if job[1] == schedule then
        jobs[#jobs + 1] = {id = id, ms = tonumber(string.sub(id, #start + 1)), started = job[2]}
      end
    end
  end
  return jobs
end

local until_now = string.format('%.0f', (now + 1) * 4096 - 1)
local due_ids = {
  call('ZRANGE', base .. 'prioritized', 0, LOOKS - 1),
  call('ZRANGEBYSCORE', base .. 'delayed', '-inf', until_now, 'LIMIT', 0, LOOKS),
}
for _, list in ipairs({base .. 'wait', base .. 'paused'}) do
  local length = call('LLEN', list)
  if length > 0 then due_ids[#due_ids + 1] = call('LRANGE', list, 0, LOOKS - 1) end
  if length > LOOKS then due_ids[#due_ids + 1] = call('LRANGE', list, math.max(LOOKS, length - LOOKS), -1) end
end
local waiting, busy = {}, #own(call('LRANGE', base .. 'active', 0, -1)) > 0
for _, ids in ipairs(due_ids) do
  for _, job in ipairs(own(ids)) do
    busy = true
    if not job.started then waiting[#waiting + 1] = job end
  end
end
local current_is_due = alive and (place ~= 'delayed' or tick <= now)
busy = busy or current_is_due

-- The coming iterations. All of them are removed, and one is made below.
local coming, gone = {}, {}
for _, job in ipairs(own(call('ZRANGEBYSCORE', base .. 'delayed', '(' .. until_now, '+inf', 'LIMIT', 0, LOOKS))) do
  if not job.started and job.ms > now then
    coming[#coming + 1] = job
    gone[job.id] = true
  end
end
if alive and not current_is_due then gone[current] = true end
if current and not alive and kind == 'hash' and (not place or place == 'delayed') then gone[current] = true end

local opts = cjson.decode(opts_text)
local function record(ms)
  if mark then call('HDEL', marks, schedule) end
  for id in pairs(gone) do
    call('ZREM', base .. 'delayed', id)
    call('UNLINK', base .. id, base .. id .. ':logs')
  end
  if kind == 'none' then call('ZREM', base .. 'delayed', current) end
  call('DEL', key)
  call('HSET', key, 'name', name, 'opts', opts_text, 'ic', made or 1)
  if data ~= '{}' then call('HSET', key, 'data', data) end
  if every then
    call('HSET', key, 'every', ARGV[3], 'offset', ms % every)
    opts['repeat'] = {count = 1, every = every}
  else
    call('HSET', key, 'pattern', pattern, 'tz', tz, 'offset', 0)
    opts['repeat'], opts.prevMillis = {count = 1, pattern = pattern, tz = tz}, ms
  end
  if not meta[3] then call('HSET', base .. 'meta', 'opts.maxLenEvents', max_events) end
end

local word = not tick and not recorded and 'made'
  or (same or why == 'check' or (timing and not recorded)) and 'resumed' or 'changed'

-- Where two iterations are due, no coming one is made: otherwise every change in a paused queue
-- would leave one more. The current one of them, or else the last, gets the new definition.
if #waiting > 1 then
  local chosen = waiting[1]
  for _, job in ipairs(waiting) do
    if chosen.id ~= current and (job.id == current or job.ms > chosen.ms) then chosen = job end
  end
  record(chosen.ms)
  local delay = tonumber(call('HGET', base .. chosen.id, 'delay')) or 0
  opts.jobId, opts.delay, opts.timestamp, opts.repeatJobKey = chosen.id, delay, now, schedule
  call('HSET', base .. chosen.id, 'name', name, 'data', data, 'opts', cjson.encode(opts))
  call('ZADD', base .. 'repeat', chosen.ms, schedule)
  return {word, chosen.ms}
end

local due
if not every then
  due = tick_after(pattern, tz, now)
elseif timing and tick and tick > now then
  due = tick
elseif timing and (tick or recorded) then
  due = grid_point(every, tonumber(found[8]) or (tick or 0) % every)
elseif not tick and not recorded and coming[1] then
  due = coming[1].ms -- only this iteration was not lost: keep its phase
else
  due = busy and now + every or now
end
-- Whether the tick's job exists: kept after its run, or promoted by hand and waiting (trap T27).
-- Then the next tick is taken. An id in a container without a job also counts: its fetch drops it
-- (trap T14), and must not drop a new job.
local function is_taken()
  local id = iteration_id(schedule, due)
  if gone[id] then return false end
  if call('EXISTS', base .. id) == 1 then return true end
  local ghost = container_of(id, LOOKS)
  return ghost ~= nil and ghost ~= 'delayed'
end
for _ = 1, 1000 do
  if not due or not is_taken() then break end
  due = every and due + every or tick_after(pattern, tz, due)
end
if not due or is_taken() then return {'unknown', now} end

record(due)
put_iteration(schedule, due, name, data, opts)
if due <= now and not meta[1] and not (tonumber(meta[2]) and call('LLEN', base .. 'active') >= tonumber(meta[2])) then
  call('ZADD', base .. 'marker', 0, '0')
end
return {word, due}
