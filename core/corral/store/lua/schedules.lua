-- The job schedulers of a queue, the next to run first (wire 2.4).
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms (not used: `QueueStore.operate` sends it to every script)
--       2 the id of one, or '' for all
-- Returns {{id, tick in Unix ms, 1 or 0, {field, value, …}}, …}; 1 where the current iteration
--         exists and has not ended

local base = KEYS[1]
-- @include iteration.lua
-- @include iteration_place.lua

local LOOKS = 1000 -- there may be thousands of schedules, and a long list to search for each

-- Whether an iteration exists and has not ended. Otherwise no client makes the scheduler's next
-- one.
local function lives(id)
  return redis.call('EXISTS', base .. id) == 1 and has_yet_to_end(id, LOOKS)
end

local replies = {}
local found
if ARGV[2] == '' then
  found = redis.call('ZRANGE', base .. 'repeat', 0, -1, 'WITHSCORES')
else
  local tick = redis.call('ZSCORE', base .. 'repeat', ARGV[2])
  found = tick and {ARGV[2], tick} or {}
end
for i = 1, #found, 2 do
  local schedule, tick = found[i], found[i + 1]
  local alive = lives(iteration_id(schedule, tonumber(tick))) and 1 or 0
  replies[#replies + 1] = {schedule, tick, alive, redis.call('HGETALL', base .. 'repeat:' .. schedule)}
end
return replies
