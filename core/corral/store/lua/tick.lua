-- Make the next iteration for one that was fetched without it (see iterate.lua).
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms   2 ticks_json, see iterate.lua   3 the fetched iteration's id
-- Returns what is still late: empty, or {{id, schedule, pattern, tz, Unix ms}} where the ticks did not reach.

local base, ticks_json = KEYS[1], ARGV[2]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000) + ARGV[1]
local max_events = redis.call('HGET', base .. 'meta', 'opts.maxLenEvents') or '10000'
-- @include events.lua
-- @include iterate.lua
advance_schedule(ARGV[3], call('HGETALL', base .. ARGV[3]))
return late
