-- The job schedulers of a queue, the next to run first (wire 2.4).
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms (not used: every script of its kind takes it)
-- Returns {{id, tick in Unix ms, 1 or 0, {field, value, …}}, …}: whether the current iteration has yet to end

local base = KEYS[1]
local replies = {}
local found = redis.call('ZRANGE', base .. 'repeat', 0, -1, 'WITHSCORES')
for i = 1, #found, 2 do
  local iteration = string.format('repeat:%s:%.0f', found[i], tonumber(found[i + 1]))
  local alive = redis.call('EXISTS', base .. iteration) == 1
    and not redis.call('ZSCORE', base .. 'completed', iteration) and not redis.call('ZSCORE', base .. 'failed', iteration)
  replies[#replies + 1] = {found[i], found[i + 1], alive and 1 or 0, redis.call('HGETALL', base .. 'repeat:' .. found[i])}
end
return replies
