-- Find jobs whose worker died, in two phases (wire 6.12).
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 interval_ms   2 max_stalled   3 offset_ms
-- Returns {wait_ms, ids}: when the next check is allowed, and which jobs went back to the waiting list.

local base = KEYS[1]
local running = redis.call('PTTL', base .. 'stalled-check')
if running > 0 then return {running, {}} end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000) + ARGV[3]
redis.call('SET', base .. 'stalled-check', now, 'PX', ARGV[1])

local meta = redis.call('HMGET', base .. 'meta', 'paused', 'concurrency', 'opts.maxLenEvents')
local events = base .. 'events'
redis.call('XTRIM', events, 'MAXLEN', '~', meta[3] or '10000')

-- An iteration of a schedule that still exists is never failed for stalling: that would end the schedule.
local function is_iteration(key)
  local schedule = redis.call('HGET', key, 'rjk')
  return schedule and (redis.call('EXISTS', base .. 'repeat:' .. schedule) == 1
    or redis.call('ZSCORE', base .. 'repeat', schedule))
end

local recovered = {}
local suspects = redis.call('SMEMBERS', base .. 'stalled')
if #suspects > 0 then
  redis.call('DEL', base .. 'stalled')
  for _, id in ipairs(suspects) do
    local key = base .. id
    if redis.call('EXISTS', key .. ':lock') == 0 and redis.call('LREM', base .. 'active', 1, id) > 0
      and redis.call('EXISTS', key) == 1 then
      local stalls = redis.call('HINCRBY', key, 'stc', 1)
      if stalls > tonumber(ARGV[2]) and not is_iteration(key) then
        redis.call('HSET', key, 'defa', 'job stalled more than allowable limit')
      end
      redis.call('RPUSH', base .. 'wait', id)
      redis.call('XADD', events, '*', 'event', 'waiting', 'jobId', id, 'prev', 'active')
      redis.call('XADD', events, '*', 'event', 'stalled', 'jobId', id)
      recovered[#recovered + 1] = id
    end
  end
end

local active = redis.call('LRANGE', base .. 'active', 0, -1)
for from = 1, #active, 5000 do
  redis.call('SADD', base .. 'stalled', unpack(active, from, math.min(from + 4999, #active)))
end
if #recovered > 0 and not meta[1] and not (meta[2] and #active >= tonumber(meta[2])) then
  redis.call('ZADD', base .. 'marker', 0, '0')
end
return {tonumber(ARGV[1]), recovered}
