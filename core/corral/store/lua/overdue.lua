-- The job schedulers with a pattern whose current iteration was due long ago, was fetched, and still has no next one: so
-- whoever fetched it could not make it, or died. Behind a backlog it was not fetched yet; after a limit it has ended.
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms   2 overdue_ms: how long ago
-- Returns {now in Unix ms, {{id, tick in Unix ms, pattern, tz or ''}, …}}; none where the queue is paused
-- Errors  DAMAGED <key> is a <type>, not a <type>

local base = KEYS[1]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000) + ARGV[1]
-- @include iteration.lua
-- @include iteration_place.lua
-- @include damage.lua

local wrong = repairs().first_wrong('repeat', 'meta')
if wrong then return redis.error_reply('DAMAGED ' .. wrong) end

local MOST = 1000 -- those that have ended stay in the set, in front
local LOOKS = 1000
local replies = {}
if redis.call('HEXISTS', base .. 'meta', 'paused') == 1 then return {now, replies} end
local until_ms = string.format('%.0f', now - ARGV[2])
local found = redis.call('ZRANGEBYSCORE', base .. 'repeat', '-inf', until_ms, 'WITHSCORES', 'LIMIT', 0, MOST)
for i = 1, #found, 2 do
  local schedule, tick = found[i], tonumber(found[i + 1])
  local id = iteration_id(schedule, tick)
  local key = base .. 'repeat:' .. schedule
  if redis.call('TYPE', key).ok == 'hash' and redis.call('TYPE', base .. id).ok == 'hash' then
    local rule = redis.call('HMGET', key, 'pattern', 'tz')
    if rule[1] and redis.call('HEXISTS', base .. id, 'ats') == 1 and has_yet_to_end(id, LOOKS) then
      replies[#replies + 1] = {schedule, string.format('%.0f', tick), rule[1], rule[2] or ''}
    end
  end
end
return {now, replies}
