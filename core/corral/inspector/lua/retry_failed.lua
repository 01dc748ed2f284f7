-- Move the next batch of failed jobs back to waiting, the oldest first (wire 6.16).
--
-- KEYS  1 `<prefix>:<queue>:`   2 the audit's stream: see audit_entry.lua
-- ARGV  1 offset_ms   2 until_ms: later failures are not retried; '' in the first call: now
--       3 from_ms, 4 skip: where the last call stopped: it has seen and left `skip` jobs that
--         failed at from_ms
--       5 limit: how many jobs are looked at
--       6 reason: only failed reasons that begin with this text; '': all
--       7 reset: as in retry.lua   then the arguments of audit_entry.lua
-- Returns {{until_ms, from_ms, skip, looked, retried, left}, audited}; looked: 0 if there are no
--         more; left: one text for each job that was skipped because of a damaged key.

-- @include queue_state.lua
-- @include audit_entry.lua
-- @include retry_job.lua

local wrong = first_damaged('failed')
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
  if type(reason) == 'table' then -- its key is not a hash
    left[#left + 1] = damage(base .. id, 'hash')
    pass(score)
  elseif string.sub(reason or '', 1, #wanted) ~= wanted then
    pass(score)
  elseif call('EXISTS', base .. id) == 0 then -- an id without a job (trap T14): it cannot run
    call('ZREM', base .. 'failed', id)
  else
    local place
    place, wrong = place_for_retry(id, 'failed')
    if wrong then
      left[#left + 1] = wrong
      pass(score)
    else
      call('ZREM', base .. 'failed', id)
      retry(id, 'failed', ARGV[7] == '1', place)
      retried = retried + 1
    end
  end
end
if retried > 0 then
  signal_work()
  write_entry(nil, 'failed', 'waiting', retried)
end
return {{until_ms, from, skip, #found / 2, retried, left}, audited}
