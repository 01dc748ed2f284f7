-- Remove a job scheduler and its coming iteration (wire 6.21); one that waits or runs already
-- stays.
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms   2 id
--       3 how it was removed, kept so that no worker makes it again; '' keeps nothing, and then
--       it looks like a schedule that was lost. `prune`, or `remove`, every_ms, pattern and tz in
--       four lines
-- Returns 1, or 0 where there was none
-- Errors  WRONGTYPE  a key is damaged; nothing was changed

local base, schedule = KEYS[1], ARGV[2]
-- @include iteration.lua

-- Read every key that is written below: one of a wrong type fails here, where nothing has changed.
redis.call('ZCARD', base .. 'delayed')
redis.call('XLEN', base .. 'events')
if ARGV[3] ~= '' then redis.call('HLEN', 'corral:' .. base .. 'removed-schedules') end

local tick = redis.call('ZSCORE', base .. 'repeat', schedule)
if tick then
  local id = iteration_id(schedule, tonumber(tick))
  if redis.call('ZREM', base .. 'delayed', id) == 1 then
    redis.call('UNLINK', base .. id, base .. id .. ':logs')
    redis.call('XADD', base .. 'events', '*', 'event', 'removed', 'jobId', id, 'prev', 'delayed')
  end
end
redis.call('DEL', base .. 'repeat:' .. schedule)
local removed = redis.call('ZREM', base .. 'repeat', schedule)
if ARGV[3] ~= '' then redis.call('HSET', 'corral:' .. base .. 'removed-schedules', schedule, ARGV[3]) end
return removed
