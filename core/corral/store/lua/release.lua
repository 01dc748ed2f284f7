-- Take back at once the jobs of a worker that is known to be dead, before its locks expire.
--
-- KEYS  1 `<prefix>:<queue>:`
--       then the records of the worker's last calls, one per lane (advance.lua)
-- ARGV  1 worker   2 max_stalled   3 offset_ms
-- Returns the ids of the jobs that went back to the waiting list, in the reverse of the order they
--         will run in.
-- Errors  DAMAGED  `meta`, `wait` or `active` has a wrong type; no job was changed

local base, max_stalled, held = KEYS[1], tonumber(ARGV[2]), ARGV[1] .. ':'
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000) + ARGV[3]
-- @include recovery.lua

-- A call of the dead worker may still arrive, and would fetch jobs that no process runs: this makes
-- it a STALECALL.
for lane = 2, #KEYS do
  call('SET', KEYS[lane], cmsgpack.pack(9007199254740991, 0, 0, 0), 'PX', 60000)
end
local active = {}
attempt(nil, function() active = call('LRANGE', base .. 'active', 0, -1) end)
for _, id in ipairs(active) do
  local lock = base .. id .. ':lock'
  local token = redis.pcall('GET', lock)
  if type(token) == 'string' and string.sub(token, 1, #held) == held and try_to_recover(id) then
    call('DEL', lock)
    redis.pcall('SREM', base .. 'stalled', id)
  end
end
attempt(nil, signal_recovered)
if damage and damage.broken then return redis.error_reply(damage.broken) end
return recovered
