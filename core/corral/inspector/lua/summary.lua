-- Read the summary of one queue. It looks at a bounded number of jobs.
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms   2 looks: how many jobs are read at each end of a container
--       3 minutes of metrics
-- Returns {now_ms, sizes, limits, waiting, started, due, completed, failed, failures, quarantined,
--         damaged, attempts, reasons, reasons_before, retrying, more, trying}
--         sizes: of wait, paused, active, prioritized, delayed, waiting-children, completed,
--           failed; -1 for a damaged key
--         limits: paused, concurrency, max, duration
--         waiting: rows {timestamp, opts, processedOn, ms of the last event `waiting`} of jobs that
--           may have waited longest
--         started: processedOn of the active jobs that came first
--         due: the lowest score of `delayed`, or ''
--         completed, failed: {count, prevTS, prevCount, {counts per minute, the newest first}} each
--         failures: at most one row, as in last_failures.lua
--         quarantined: how many ids are in quarantine; -1 if that key is damaged
--         damaged: one text for each damaged key of the queue; their contents are missing in the
--           other values
--         attempts: as completed and failed, of failed attempts
--         reasons, reasons_before: why attempts failed in this hour of the clock and in the one
--           before, as attempts.lua writes them
--         retrying: how many of the delayed jobs that are due first have failed attempts
--         more: 1 if there are more delayed jobs than were looked at, else 0
--         trying: 1 if none is retrying, and one of the jobs that began or were promoted last has
--           failed attempts; else 0

-- @include queue_state.lua
-- @include last_failures.lua
-- @include sizes.lua
-- @include failed_attempts.lua
-- @include retrying.lua

local looks, minutes = tonumber(ARGV[2]), tonumber(ARGV[3])
local EVENTS = 300 -- how many of the last events are read: enough to find a recent retry of many jobs at once
local LONG_MS = 60000

-- The jobs that run next are the oldest, except for jobs that are `lifo`, retried, promoted, or
-- more urgent: therefore both ends of the lists are read.
local ids, is_known = {}, {}
local function add(found)
  for _, id in ipairs(found) do
    if not is_known[id] then ids[#ids + 1] = id end
    is_known[id] = true
  end
end
for _, name in ipairs({'wait', 'paused'}) do
  add(read('LRANGE', base .. name, -looks, -1) or {})
  add(read('LRANGE', base .. name, 0, looks - 1) or {})
end
local priority = 0
for _ = 1, looks do -- the oldest job of each priority (wire 5.3)
  local least = priority * 4294967296
  local found = read('ZRANGEBYSCORE', base .. 'prioritized', least, '+inf', 'WITHSCORES', 'LIMIT', 0, 1) or {}
  if not found[2] then break end
  add({found[1]})
  priority = math.max(priority, math.floor(found[2] / 4294967296)) + 1
end

-- Only the events say when a job was retried or promoted by hand. They are read if a job seems to
-- have waited for long.
local waiting, long = {}, {}
for _, id in ipairs(ids) do
  local held = redis.pcall('HMGET', base .. id, 'timestamp', 'opts', 'processedOn')
  if not held.err and held[1] then
    waiting[#waiting + 1] = held
    held[4] = false
    if not held[3] and (tonumber(held[1]) or now) < now - LONG_MS then long[id] = held end
  end
end
local before, looked, bytes = '+', 0, 0
while next(long) and looked < EVENTS and bytes < 500000 do -- events may hold results
  local entries = read('XREVRANGE', events, before, '-', 'COUNT', 50) or {}
  for _, entry in ipairs(entries) do
    local event = entry[2]
    local held = event[2] == 'waiting' and long[event[4]]
    if held and not held[4] then held[4] = string.match(entry[1], '^%d+') end
    bytes = bytes + #(event[6] or '')
    before = '(' .. entry[1]
  end
  looked = looked + 50
  if #entries < 50 then break end
end

local started = {}
for _, id in ipairs(read('LRANGE', base .. 'active', -5 * looks, -1) or {}) do
  local since = redis.pcall('HGET', base .. id, 'processedOn')
  if type(since) == 'string' then started[#started + 1] = since end
end

local function read_metrics(key)
  local counts = read('HMGET', key, 'count', 'prevTS', 'prevCount') or {false, false, false}
  counts[4] = counts[1] and read('LRANGE', key .. ':data', 0, minutes - 1) or {}
  return counts
end

local all_sizes, all_limits = sizes(), limits()
local first_due = (read('ZRANGE', base .. 'delayed', 0, 0, 'WITHSCORES') or {})[2] or ''
local completed, failed = read_metrics(base .. 'metrics:completed'), read_metrics(base .. 'metrics:failed')
local in_quarantine = quarantine_size()
local attempts = read_metrics('corral:' .. base .. 'attempts')
local reasons, reasons_before = failed_reasons()
local retrying, more = find_retrying()
local trying = 0
if #retrying == 0 and #reasons + #reasons_before > 0 then -- else nobody asks whether it is over
  for name, most in pairs({active = 5 * looks, wait = looks}) do -- a job enters them on the left (wire 2.1)
    for _, id in ipairs(read('LRANGE', base .. name, 0, most - 1) or {}) do
      if trying == 0 and has_failed(id) then trying = 1 end
    end
  end
end
return {
  now, all_sizes, all_limits, waiting, started, first_due, completed, failed, last_failures(5, 1), in_quarantine,
  damaged_keys(), attempts, reasons, reasons_before, #retrying, more and 1 or 0, trying,
}
