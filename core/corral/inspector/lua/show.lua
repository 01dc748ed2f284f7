-- All of one job.
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms   2 id
-- Returns {now_ms, container, flat hash, count of log lines, lock_ms, due score}; nothing where there is no such job.
--         container '' where none holds it; lock_ms: until its lock ends, negative without one; due score '' unless
--         it is delayed.

-- @include opening.lua

local id = ARGV[2]
local key = base .. id
local hash = call('HGETALL', key)
if #hash == 0 then return false end
return {
  now, container_of(id) or '', hash, call('LLEN', key .. ':logs'), call('PTTL', key .. ':lock'),
  call('ZSCORE', base .. 'delayed', id) or '',
}
