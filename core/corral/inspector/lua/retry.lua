-- Make finished jobs wait again (wire 6.16).
--
-- KEYS  1 `<prefix>:<queue>:`   2, and the end of ARGV: see told.lua
-- ARGV  1 offset_ms   2 reset ('1' to count attempts and starts from zero, or '')   3.. ids
-- Returns {codes, told}, one code per id: 1 it waits again; -1 no such job; -3 it is neither failed nor completed; a text
--         says which key of it, or of what it needs, is damaged. Nothing of a job is changed where its code is not 1.

-- @include opening.lua
-- @include told.lua
-- @include retrying.lua

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
      local wrong = broken(name)
      unread = unread or wrong
      if not state and not wrong and call('ZSCORE', base .. name, id) then state = name end
    end
    local way, wrong
    if state then
      way, wrong = ready(id, state)
    else
      wrong = unread
    end
    if state and not wrong then
      call('ZREM', base .. state, id)
      before, after = state, retry(id, state, ARGV[2] == '1', way)
      changed[#changed + 1] = id
    end
    codes[#codes + 1] = wrong or state and 1 or -3
  end
end
if #changed > 0 then signal_work() end
tell_jobs(ids, changed, before, after)
return {codes, told}
