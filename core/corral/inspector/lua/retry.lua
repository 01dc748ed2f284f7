-- Move finished jobs back to waiting (wire 6.16).
--
-- KEYS  1 `<prefix>:<queue>:`   2 the audit's stream: see audit_entry.lua
-- ARGV  1 offset_ms   2 reset: '1' counts attempts and starts from zero; or ''   3.. ids
--       then the arguments of audit_entry.lua
-- Returns {codes, audited}, one code per id: 1 it is waiting again; -1 no such job; -3 it has
--         neither failed nor completed; a text: a key of the job, or one that it needs, is
--         damaged. A job whose code is not 1 is not changed at all.

-- @include queue_state.lua
-- @include audit_entry.lua
-- @include retry_job.lua

local ids, codes, changed = {}, {}, {}
local before, after
for i = 3, #ARGV do
  local id = ARGV[i]
  ids[#ids + 1] = id
  if call('EXISTS', base .. id) == 0 then
    codes[#codes + 1] = -1
  else
    local state, unread
    for _, name in ipairs({'failed', 'completed'}) do
      local wrong = first_damaged(name)
      unread = unread or wrong
      if not state and not wrong and call('ZSCORE', base .. name, id) then state = name end
    end
    local place, wrong
    if state then
      place, wrong = place_for_retry(id, state)
    else
      wrong = unread
    end
    if state and not wrong then
      call('ZREM', base .. state, id)
      before, after = state, retry(id, state, ARGV[2] == '1', place)
      changed[#changed + 1] = id
    end
    codes[#codes + 1] = wrong or state and 1 or -3
  end
end
if #changed > 0 then signal_work() end
write_entry_of_jobs(ids, changed, before, after)
return {codes, audited}
