-- Find jobs whose worker died, in two phases (wire 6.12).
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 interval_ms   2 max_stalled   3 offset_ms
-- Returns {wait_ms, ids}: when the next check is allowed, and which jobs went back to the waiting list.

local base, max_stalled = KEYS[1], tonumber(ARGV[2])
local running = redis.call('PTTL', base .. 'stalled-check')
if running > 0 then return {running, {}} end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000) + ARGV[3]
redis.call('SET', base .. 'stalled-check', now, 'PX', ARGV[1])

-- @include recovery.lua

local suspects = redis.call('SMEMBERS', base .. 'stalled')
if #suspects > 0 then
  redis.call('DEL', base .. 'stalled')
  for _, id in ipairs(suspects) do
    if redis.call('EXISTS', base .. id .. ':lock') == 0 then recover(id) end
  end
end

local active = redis.call('LRANGE', base .. 'active', 0, -1)
for from = 1, #active, 5000 do
  redis.call('SADD', base .. 'stalled', unpack(active, from, math.min(from + 4999, #active)))
end
signal_recovered()
return {tonumber(ARGV[1]), recovered}
