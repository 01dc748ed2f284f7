-- Renew the locks of running jobs (wire 6.13).
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 lock_ms   then per job: id, token
-- Returns the places (from 0) of the jobs whose lock is not ours any more. Nothing is created for them: a removed job
-- leaves no key.

local base = KEYS[1]
local lost, kept = {}, {}
local locks = {}
for i = 2, #ARGV, 2 do locks[#locks + 1] = base .. ARGV[i] .. ':lock' end
local tokens = redis.call('MGET', unpack(locks))
for i = 2, #ARGV, 2 do
  if tokens[i / 2] == ARGV[i + 1] then
    redis.call('SET', locks[i / 2], ARGV[i + 1], 'PX', ARGV[1])
    kept[#kept + 1] = ARGV[i]
  else
    lost[#lost + 1] = i / 2 - 1
  end
end
if #kept > 0 then redis.call('SREM', base .. 'stalled', unpack(kept)) end
return lost
