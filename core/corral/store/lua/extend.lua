-- Renew the locks of running jobs (wire 6.13), and of jobs that a call has fetched whose reply is
-- still on its way: while that waits for a blocked event loop, no other worker may take the jobs.
--
-- KEYS  1 `<prefix>:<queue>:`   then the records of calls on their way (advance.lua)
-- ARGV  1 lock_ms   2 worker   then per record: seq   then per job: id, token
-- Returns the places (from 0) of the jobs whose lock is not ours any more; and -n where the nth
-- call's locks are not all renewed: one is not ours any more, or there is no record of the call,
-- because it has not arrived or because its record has expired. Nothing is created: a removed job
-- leaves no key. A full store allows each of these writes.

local base, lock_ms, calls = KEYS[1], ARGV[1], #KEYS - 1
local lost, kept = {}, {}

for i = 1, calls do
  local record = redis.call('GET', KEYS[i + 1])
  local seq, _, ids
  if record then seq, _, _, _, _, _, ids = cmsgpack.unpack(record) end
  local all = seq == tonumber(ARGV[2 + i])
  if all then
    local token = ARGV[2] .. ':' .. ARGV[2 + i]
    for _, id in ipairs(ids) do
      if redis.pcall('GET', base .. id .. ':lock') == token then
        redis.call('PEXPIRE', base .. id .. ':lock', lock_ms)
        kept[#kept + 1] = id
      else
        all = false
      end
    end
    redis.call('PEXPIRE', KEYS[i + 1], 2 * lock_ms)
  end
  if not all then lost[#lost + 1] = -i end
end

local first = 3 + calls
local locks = {}
for i = first, #ARGV, 2 do locks[#locks + 1] = base .. ARGV[i] .. ':lock' end
local tokens = #locks > 0 and redis.call('MGET', unpack(locks)) or {}
for place, lock in ipairs(locks) do
  local at = first + (place - 1) * 2
  if tokens[place] == ARGV[at + 1] then
    redis.call('PEXPIRE', lock, lock_ms)
    kept[#kept + 1] = ARGV[at]
  else
    lost[#lost + 1] = place - 1
  end
end
-- Fails where `stalled` is no set; the stalled check repairs that.
if #kept > 0 then redis.pcall('SREM', base .. 'stalled', unpack(kept)) end
return lost
