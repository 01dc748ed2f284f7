-- Make the successor of an iteration that was fetched without one (see iterate.lua).
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms   2 ticks_json, see iterate.lua   3 the fetched iteration's id
-- Errors  DAMAGED  a key of the schedule is damaged; nothing was changed
-- Returns {}, or {{id, schedule, pattern, tz, Unix ms}} where there were too few ticks; see
--         iterate.lua.

local base, ticks_json = KEYS[1], ARGV[2]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000) + ARGV[1]
local meta = redis.call('HMGET', base .. 'meta', 'paused', 'opts.maxLenEvents')
local max_events = string.match(meta[2] or '', '^%d+$') or '10000'
-- @include events.lua
local queue, is_paused = base, meta[1]
-- @include wait_list.lua
-- @include iterate.lua
local done, reason = attempt(nil, advance_schedule, ARGV[3], call('HGETALL', base .. ARGV[3]))
if not done then return redis.error_reply('DAMAGED ' .. reason) end
return pending
