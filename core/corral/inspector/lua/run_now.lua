-- Move delayed jobs to waiting (wire 6.15).
--
-- KEYS  1 `<prefix>:<queue>:`   2 the audit's stream: see audit_entry.lua
-- ARGV  1 offset_ms   2 limit, 3 skip: without ids, take `limit` jobs in the order of their due
--         times, after skipping `skip`
--       4.. ids   then the arguments of audit_entry.lua
-- Returns {codes, audited}, one code per job: 1 it is waiting; -1 no such job; -3 it is not
--         delayed; a text: a key is damaged, and the job is not changed.

-- @include queue_state.lua
-- @include audit_entry.lua

local wrong = first_damaged('delayed')
if wrong then return refusal(wrong) end

local ids = {}
if #ARGV > 3 then
  for i = 4, #ARGV do ids[#ids + 1] = ARGV[i] end
else
  ids = call('ZRANGE', base .. 'delayed', ARGV[3], ARGV[3] + ARGV[2] - 1)
end
local codes, changed = {}, {}
local after
for i, id in ipairs(ids) do
  if call('EXISTS', base .. id) == 0 then
    call('ZREM', base .. 'delayed', id)
    codes[i] = -1
  elseif not call('ZSCORE', base .. 'delayed', id) then
    codes[i] = -3
  else
    local place
    place, wrong = waiting_place(base .. id)
    codes[i] = wrong or 1
    if not wrong then
      call('ZREM', base .. 'delayed', id)
      after = put_into_waiting(id, place, 'delayed')
      call('HSET', base .. id, 'delay', 0)
      changed[#changed + 1] = id
    end
  end
end
if #changed > 0 then signal_work() end
if #ARGV > 3 then
  write_entry_of_jobs(ids, changed, 'delayed', after)
elseif #changed > 0 then
  write_entry(nil, 'delayed', 'waiting', #changed)
end
return {codes, audited}
