-- Record what running jobs said: progress and log lines (wire 6.13).
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  per note: id, kind ('p' progress, 'l' log line), text, how many lines are kept (0 keeps all)
-- Returns nothing of interest. A job that is gone is skipped: it must leave no keys behind.

local base = KEYS[1]
local max_events = redis.call('HGET', base .. 'meta', 'opts.maxLenEvents') or '10000'
for i = 1, #ARGV, 4 do
  local id, kind, text, keep = ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3])
  local key = base .. id
  if redis.call('EXISTS', key) == 1 then
    if kind == 'p' then
      redis.call('HSET', key, 'progress', text)
      redis.call('XADD', base .. 'events', 'MAXLEN', '~', max_events, '*', 'event', 'progress', 'jobId', id, 'data', text)
    else
      redis.call('RPUSH', key .. ':logs', text)
      if keep > 0 then redis.call('LTRIM', key .. ':logs', -keep, -1) end
    end
  end
end
