-- The job schedulers whose current iteration was due long ago, and that have no next one. Either
-- the iteration was fetched and has not ended, and no client made the next one, for example because
-- none could parse the pattern. Or it is gone or has ended: the scheduler does not run any more. An
-- iteration behind a backlog does not count, because it was not fetched, nor does a scheduler that
-- has reached its own limit or end.
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms   2 overdue_ms, how long ago it was due
-- Returns {now in Unix ms, {{id, tick in Unix ms, pattern or '', tz or '', 1 where it does not run
--         any more}, …}}; none where the queue is paused
-- Errors  DAMAGED <key> is a <type>, not a <type>

local base = KEYS[1]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000) + ARGV[1]
-- @include iteration.lua
-- @include iteration_place.lua
-- @include damage.lua

local wrong = repairs().first_wrong('repeat', 'meta')
if wrong then return redis.error_reply('DAMAGED ' .. wrong) end

local MOST = 1000 -- schedulers that have ended stay in the set, in front
local LOOKS = 1000
local replies = {}
if redis.call('HEXISTS', base .. 'meta', 'paused') == 1 then return {now, replies} end
local until_ms = string.format('%.0f', now - ARGV[2])
local found = redis.call('ZRANGEBYSCORE', base .. 'repeat', '-inf', until_ms, 'WITHSCORES', 'LIMIT', 0, MOST)
for i = 1, #found, 2 do
  local schedule, tick = found[i], tonumber(found[i + 1])
  local id = iteration_id(schedule, tick)
  local key = base .. 'repeat:' .. schedule
  local kind = redis.call('TYPE', base .. id).ok
  if redis.call('TYPE', key).ok == 'hash' and (kind == 'hash' or kind == 'none') then
    local rule = redis.call('HMGET', key, 'pattern', 'tz', 'limit', 'ic', 'endDate')
    local limit, made = tonumber(rule[3]), tonumber(rule[4]) or 0
    local has_run_out = rule[5] or (limit and made >= limit) -- its next tick may be after its end
    local run = redis.call('HMGET', base .. id, 'ats', 'finishedOn')
    local gone = kind == 'none' or run[2]
    local stands = rule[1] and run[1] and has_yet_to_end(id, LOOKS)
    if (gone and not has_run_out) or (stands and not gone) then
      replies[#replies + 1] = {schedule, string.format('%.0f', tick), rule[1] or '', rule[2] or '', gone and 1 or 0}
    end
  end
end
return {now, replies}
