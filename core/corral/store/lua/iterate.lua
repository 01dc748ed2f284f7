-- Included where a job scheduler gets its next iteration (wire 6.21). A script cannot parse a cron
-- pattern, so the caller sends the coming ticks. Needs events.lua and `ticks_json`:
-- `{"<pattern>\n<tz>": [from, tick, tick, …]}` in Unix ms.
-- Leaves pending: the iterations without a successor, because their next tick was not among those:
-- {id, schedule, pattern, tz, the successor's tick is later than this in Unix ms}.

local pending, ticks = {}, nil

-- The pattern's first tick after `at`, if the caller has sent it.
local function tick_after(pattern, tz, at)
  ticks = ticks or cjson.decode(ticks_json)
  local known = ticks[pattern .. '\n' .. tz] or {}
  for i = 2, #known do
    if known[i - 1] <= at and at < known[i] then return known[i] end
  end
end

-- @include iteration.lua

-- Make the job of a tick, and record it as the schedule's current one. A job that is half made is
-- removed: as long as its key exists, no client makes this iteration again.
local function put_iteration(schedule, ms, name, data, opts)
  local id = iteration_id(schedule, ms)
  local delay, priority = math.max(ms - now, 0), tonumber(opts.priority) or 0
  opts.jobId, opts.delay, opts.timestamp, opts.repeatJobKey = id, delay, now, schedule
  -- @include place.lua
  local function put()
    call('INCR', base .. 'id')
    call('HSET', base .. id, 'name', name, 'data', data or '{}', 'opts', cjson.encode(opts), 'timestamp', now,
      'delay', delay, 'priority', priority, 'rjk', schedule)
    call('XADD', events, '*', 'event', 'added', 'jobId', id, 'name', name)
    place_job(id, delay, ms, priority, opts.lifo)
    call('ZADD', base .. 'repeat', ms, schedule)
  end
  local done, err = pcall(put)
  if not done then
    redis.pcall('ZREM', base .. 'delayed', id)
    redis.call('UNLINK', base .. id)
    error(err, 0)
  end
  if delay > 0 then signal_delayed() end
end

-- The first point of a grid after `now`.
local function grid_point(every, offset)
  local point = math.floor(now / every) * every + offset
  if point <= now then point = point + every end
  return point
end

-- Make the iteration that follows a fetched one. Only the scheduler's current iteration has a next
-- one, so a stalled or retried tick does not make it twice. An error names what is damaged; nothing
-- was changed then.
local function advance_schedule(id, hash)
  local job = {}
  for i = 1, #hash, 2 do job[hash[i]] = hash[i + 1] end
  local schedule = job.rjk
  local tick = schedule and tonumber(call('ZSCORE', base .. 'repeat', schedule))
  if not tick or id ~= iteration_id(schedule, tick) then return end
  local key = base .. 'repeat:' .. schedule
  local found = call('HMGET', key, 'name', 'every', 'pattern', 'tz', 'offset', 'data', 'endDate', 'ic')
  local every, pattern, tz = tonumber(found[2]), found[3], found[4] or ''
  local known, opts = pcall(cjson.decode, job.opts or '{}')
  if not known or type(opts) ~= 'table' or not (every or pattern) then return end
  local rule = type(opts['repeat']) == 'table' and opts['repeat'] or {}
  local iteration = (tonumber(rule.count) or 1) + 1
  local last = tonumber(found[7])
  if (tonumber(rule.limit) and iteration > tonumber(rule.limit)) or (last and now > last) then return end

  local following
  if every then
    if not (every >= 1) then error('its interval is ' .. found[2] .. ' ms', 0) end
    following = tick + every
    if following < now then following = grid_point(every, tonumber(found[5]) or tick % every) end
  else
    following = tick_after(pattern, tz, math.max(now, tick))
    if not following then
      pending[#pending + 1] = {id, schedule, pattern, tz, math.max(now, tick)}
      return
    end
    if last and following > last then return end
    opts.prevMillis = following
  end
  local next_id = iteration_id(schedule, following)
  local there = call('TYPE', base .. next_id).ok
  if there == 'hash' then return emit_capped('duplicated', 'jobId', next_id) end
  if there ~= 'none' then error(next_id .. ' is a ' .. there .. ', not a job', 0) end
  rule.count, opts['repeat'] = iteration, rule
  if found[8] then call('HINCRBY', key, 'ic', 1) end
  -- A scheduler of BullMQ 5 (it has no `ic`) keeps its data in its jobs only.
  put_iteration(schedule, following, found[1] or job.name or '', found[6] or (not found[8] and job.data), opts)
end
