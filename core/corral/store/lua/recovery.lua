-- Included by scripts that take jobs back from dead workers (wire 6.12).
-- Needs in scope: base (`<prefix>:<queue>:`), max_stalled (number).
-- Leaves: recovered, the ids that went back to the waiting list.

local meta = redis.call('HMGET', base .. 'meta', 'paused', 'concurrency', 'opts.maxLenEvents')
local events = base .. 'events'
redis.call('XTRIM', events, 'MAXLEN', '~', meta[3] or '10000')
local recovered = {}

-- An iteration of a schedule that still exists is never failed for stalling: that would end the schedule.
local function is_iteration(key)
  local schedule = redis.call('HGET', key, 'rjk')
  return schedule and (redis.call('EXISTS', base .. 'repeat:' .. schedule) == 1
    or redis.call('ZSCORE', base .. 'repeat', schedule))
end

-- A job that nobody holds any more: to the head of the waiting list, or for the next worker to fail it.
local function recover(id)
  local key = base .. id
  if redis.call('LREM', base .. 'active', 1, id) == 0 or redis.call('EXISTS', key) == 0 then return end
  local stalls = redis.call('HINCRBY', key, 'stc', 1)
  if stalls > max_stalled and not is_iteration(key) then
    redis.call('HSET', key, 'defa', 'job stalled more than allowable limit')
  end
  redis.call('RPUSH', base .. 'wait', id)
  redis.call('XADD', events, '*', 'event', 'waiting', 'jobId', id, 'prev', 'active')
  redis.call('XADD', events, '*', 'event', 'stalled', 'jobId', id)
  recovered[#recovered + 1] = id
end

local function signal_recovered()
  if #recovered == 0 or meta[1] then return end
  if meta[2] and redis.call('LLEN', base .. 'active') >= tonumber(meta[2]) then return end
  redis.call('ZADD', base .. 'marker', 0, '0')
end
