-- Read everything that is stored of one job, except its log lines.
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms   2 id
-- Returns {now_ms, container, flat hash, count of log lines, lock_ms, due score}; nothing if there
--         is no such job.
--         container: '' if no container holds the job   count: -1 if that key is damaged
--         lock_ms: time until the lock expires; negative without a lock
--         due score: '' unless the job is delayed

-- @include queue_state.lua

local id = ARGV[2]
local key = base .. id
local wrong = damage(key, 'hash')
if wrong then return refusal(wrong) end
local hash = call('HGETALL', key)
if #hash == 0 then return false end
local container, unread = container_of(id)
if unread then return refusal(unread) end
local lines = redis.pcall('LLEN', key .. ':logs')
return {
  now, container or '', hash, type(lines) == 'number' and lines or -1, call('PTTL', key .. ':lock'),
  container == 'delayed' and call('ZSCORE', base .. 'delayed', id) or '',
}
