-- Ensure a job scheduler (wire 6.21): one of the same definition whose chain is alive is left exactly as it is.
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms   2 id   3 every_ms, '' for a pattern   4 pattern   5 tz   6 ticks_json, see iterate.lua
--       7 name   8 data   9 opts of its jobs, JSON text
-- Returns {word, next_ms}
--         untouched   the same and alive
--         made        there was none
--         changed     its definition was another; a tick that is due stays and runs, a coming one is replaced
--         resumed     the same, but nobody had made its next iteration
--         unknown     the ticks did not reach; next_ms is the store's time, to count them from

local base, schedule, every, pattern, tz = KEYS[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local ticks_json, name, data, opts_text = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000) + ARGV[1]
local meta = redis.call('HMGET', base .. 'meta', 'paused', 'concurrency', 'opts.maxLenEvents')
local max_events = meta[3] or '10000'
-- @include events.lua
-- @include iterate.lua

local key = base .. 'repeat:' .. schedule
local tick = tonumber(call('ZSCORE', base .. 'repeat', schedule))
local found = call('HMGET', key, 'every', 'pattern', 'tz', 'name', 'data', 'opts', 'ic', 'offset', 'limit', 'endDate')
local timing = (every and found[1] == ARGV[3]) or (not every and found[2] == pattern and found[3] == tz)
local same = timing and found[4] == name and (found[5] or '{}') == data and found[6] == opts_text
  and not found[9] and not found[10]
local current = tick and iteration_id(schedule, tick)
if same and current and lives(current) then return {'untouched', tick} end

local due = every and ((timing and tick) and (tick > now and tick or grid_point(every, tonumber(found[8]) or 0)) or now)
  or tick_after(pattern, tz, now)
if due and tick and tick > now and call('ZREM', base .. 'delayed', current) == 1 then
  call('UNLINK', base .. current, base .. current .. ':logs')
end
-- A tick whose job is kept, or was promoted by hand and waits, has run or will (trap T27): the next one is ours.
for _ = 1, 32 do
  if not due or call('EXISTS', base .. iteration_id(schedule, due)) == 0 then break end
  due = every and due + every or tick_after(pattern, tz, due)
end
if not due then return {'unknown', now} end

call('DEL', key)
call('HSET', key, 'name', name, 'opts', opts_text, 'ic', found[7] or 1)
if data ~= '{}' then call('HSET', key, 'data', data) end
local opts = cjson.decode(opts_text)
if every then
  call('HSET', key, 'every', ARGV[3], 'offset', due % every)
  opts['repeat'] = {count = 1, every = every}
else
  call('HSET', key, 'pattern', pattern, 'tz', tz, 'offset', 0)
  opts['repeat'], opts.prevMillis = {count = 1, pattern = pattern, tz = tz}, due
end
if not meta[3] then call('HSET', base .. 'meta', 'opts.maxLenEvents', max_events) end
put_iteration(schedule, due, name, data, opts)
if due <= now and not meta[1] and not (meta[2] and call('LLEN', base .. 'active') >= tonumber(meta[2])) then
  call('ZADD', base .. 'marker', 0, '0')
end
return {not tick and 'made' or same and 'resumed' or 'changed', due}
