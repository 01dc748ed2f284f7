-- Find jobs whose worker died, in two phases (wire 6.12).
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 interval_ms   2 max_stalled   3 offset_ms
-- Returns {wait_ms, ids, reports}: when the next check is allowed, which jobs went back to the
-- waiting list, and see damage.lua.
-- Errors  DAMAGED  `meta`, `wait` or `active` has a wrong type; no job was changed

local base, max_stalled = KEYS[1], tonumber(ARGV[2])
local running = redis.call('PTTL', base .. 'stalled-check')
if running > 0 then return {running, {}, {}} end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000) + ARGV[3]

-- @include recovery.lua
-- @include put_aside.lua

-- Once per interval all keys are checked, this one too: a `stalled-check` of another type must not
-- be overwritten.
repairs().mend()
call('SET', base .. 'stalled-check', now, 'PX', ARGV[1])

local suspects = {}
attempt(nil, function()
  suspects = call('SMEMBERS', base .. 'stalled')
  if #suspects > 0 then call('DEL', base .. 'stalled') end
end)
local unrecovered = {}
for _, id in ipairs(suspects) do
  local lock = redis.pcall('GET', base .. id .. ':lock')
  if type(lock) == 'table' then repairs().set_aside(id .. ':lock', 'key', base .. id .. ':lock is no lock') end
  if type(lock) ~= 'string' and not try_to_recover(id) then unrecovered[#unrecovered + 1] = id end
end

local function mark_active()
  local active = call('LRANGE', base .. 'active', 0, -1)
  for from = 1, #active, 5000 do
    call('SADD', base .. 'stalled', unpack(active, from, math.min(from + 4999, #active)))
  end
  for _, id in ipairs(unrecovered) do call('SADD', base .. 'stalled', id) end
end

if wait_list ~= base .. 'wait' then attempt(nil, put_aside) end
attempt(nil, mark_active)
attempt(nil, signal_recovered)
if damage.broken then return redis.error_reply(damage.broken) end
return {tonumber(ARGV[1]), recovered, damage.reports}
