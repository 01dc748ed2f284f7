-- All of one job.
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms   2 id
-- Returns {now_ms, container, flat hash, count of log lines, lock_ms, due score}; nothing where there is no such job.
--         container '' where none holds it; count -1 where that key is damaged; lock_ms: until its lock ends, negative without one; due score '' unless
--         it is delayed.

-- @include opening.lua

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
