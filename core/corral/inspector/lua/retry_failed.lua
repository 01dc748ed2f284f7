-- Make the next of many failed jobs wait again, the oldest first (wire 6.16).
--
-- KEYS  1 `<prefix>:<queue>:`   2, and the end of ARGV: see told.lua
-- ARGV  1 offset_ms   2 until_ms: later failures are left; '' in the first call: until now
--       3 from_ms, 4 skip: where the last call ended: so many jobs that failed at from_ms were seen and left
--       5 limit: how many jobs are looked at   6 reason: how their failed reason begins; '' takes all
--       7 reset, as in retry.lua
-- Returns {{until_ms, from_ms, skip, looked, retried, left}, told}; looked 0: there are no more; left: what is damaged of
--         jobs that are left for that.

-- @include opening.lua
-- @include told.lua
-- @include retrying.lua

local wrong = broken('failed')
if wrong then return refusal(wrong) end

local until_ms = ARGV[2] == '' and string.format('%.0f', now) or ARGV[2]
local from, skip, wanted = ARGV[3], tonumber(ARGV[4]), ARGV[6]
local found = call('ZRANGEBYSCORE', base .. 'failed', from, until_ms, 'WITHSCORES', 'LIMIT', skip, ARGV[5])
local retried, left = 0, {}

local function pass(score)
  if score == from then
    skip = skip + 1
  else
    from, skip = score, 1
  end
end

for i = 1, #found, 2 do
  local id, score = found[i], found[i + 1]
  local reason = redis.pcall('HGET', base .. id, 'failedReason')
  if type(reason) == 'table' then -- its key is no hash
    left[#left + 1] = damage(base .. id, 'hash')
    pass(score)
  elseif string.sub(reason or '', 1, #wanted) ~= wanted then
    pass(score)
  elseif call('EXISTS', base .. id) == 0 then -- a ghost, which nobody could run (trap T14)
    call('ZREM', base .. 'failed', id)
  else
    local way
    way, wrong = ready(id, 'failed')
    if wrong then
      left[#left + 1] = wrong
      pass(score)
    else
      call('ZREM', base .. 'failed', id)
      retry(id, 'failed', ARGV[7] == '1', way)
      retried = retried + 1
    end
  end
end
if retried > 0 then
  signal_work()
  tell(nil, 'failed', 'waiting', retried)
end
return {{until_ms, from, skip, #found / 2, retried, left}, told}
