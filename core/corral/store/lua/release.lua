-- Take back at once what a worker held that is known to be dead: nobody waits for its locks to run out.
--
-- KEYS  1 `<prefix>:<queue>:`   then the records of the worker's last calls, one per lane (advance.lua)
-- ARGV  1 worker   2 max_stalled
-- Returns the ids of the jobs that went back to the waiting list, in the reverse of the order they will run in.

local base, max_stalled, held = KEYS[1], tonumber(ARGV[2]), ARGV[1] .. ':'
-- @include recovery.lua

-- A call that the worker sent and that comes only now would take jobs for nobody: it is refused as a ghost.
for lane = 2, #KEYS do
  redis.call('SET', KEYS[lane], cmsgpack.pack({seq = 9007199254740991}), 'PX', 60000)
end
for _, id in ipairs(redis.call('LRANGE', base .. 'active', 0, -1)) do
  local lock = base .. id .. ':lock'
  if string.sub(redis.call('GET', lock) or '', 1, #held) == held then
    redis.call('DEL', lock)
    redis.call('SREM', base .. 'stalled', id)
    recover(id)
  end
end
signal_recovered()
return recovered
