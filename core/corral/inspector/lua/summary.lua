-- One queue at a glance. It looks at no more jobs however many there are.
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms   2 looks: how many jobs are looked at, per end of a container   3 minutes of metrics
-- Returns {now_ms, sizes, limits, waiting, started, due, completed, failed, failures}
--         sizes: of wait, paused, active, prioritized, delayed, waiting-children, completed, failed
--         limits: paused, concurrency, max, duration
--         waiting: {timestamp, opts, processedOn} of jobs that may have waited longest
--         started: processedOn of the active jobs that came first   due: the lowest score of `delayed`, or ''
--         completed, failed: {count, prevTS, prevCount, {counts per minute, the newest first}} each
--         failures: as in failing.lua, at most one

-- @include opening.lua
-- @include failing.lua

local looks, minutes = tonumber(ARGV[2]), tonumber(ARGV[3])

local function read(ids, found, ...)
  for _, id in ipairs(ids) do
    local held = redis.pcall('HMGET', base .. id, ...)
    if not held.err and held[1] then found[#found + 1] = held end
  end
end

-- Next to run are the oldest, but for what is `lifo`, was retried or promoted, or is more urgent.
local waiting = {}
for _, name in ipairs({'wait', 'paused'}) do
  read(call('LRANGE', base .. name, -looks, -1), waiting, 'timestamp', 'opts', 'processedOn')
  read(call('LRANGE', base .. name, 0, looks - 1), waiting, 'timestamp', 'opts', 'processedOn')
end
local priority = 0
for _ = 1, looks do -- the oldest of each priority (wire 5.3)
  local found = call('ZRANGEBYSCORE', base .. 'prioritized', priority * 4294967296, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  if not found[2] then break end
  read({found[1]}, waiting, 'timestamp', 'opts', 'processedOn')
  priority = math.max(priority, math.floor(found[2] / 4294967296)) + 1
end

local started = {}
read(call('LRANGE', base .. 'active', -5 * looks, -1), started, 'processedOn')
for i = 1, #started do started[i] = started[i][1] end

local function counted(name)
  local key = base .. 'metrics:' .. name
  local counts = call('HMGET', key, 'count', 'prevTS', 'prevCount')
  counts[4] = call('LRANGE', key .. ':data', 0, minutes - 1)
  return counts
end

return {
  now,
  {
    call('LLEN', base .. 'wait'), call('LLEN', base .. 'paused'), call('LLEN', base .. 'active'),
    call('ZCARD', base .. 'prioritized'), call('ZCARD', base .. 'delayed'), call('ZCARD', base .. 'waiting-children'),
    call('ZCARD', base .. 'completed'), call('ZCARD', base .. 'failed'),
  },
  call('HMGET', base .. 'meta', 'paused', 'concurrency', 'max', 'duration'),
  waiting,
  started,
  call('ZRANGE', base .. 'delayed', 0, 0, 'WITHSCORES')[2] or '',
  counted('completed'),
  counted('failed'),
  last_failures(5, 1),
}
