-- Make finished jobs wait again (wire 6.16).
--
-- KEYS  1 `<prefix>:<queue>:`   2, and the end of ARGV: see told.lua
-- ARGV  1 offset_ms   2 reset ('1' to count attempts and starts from zero, or '')   3.. ids
-- Returns {codes, told}, one code per id: 1 it waits again; -1 no such job; -3 it is neither failed nor completed.

-- @include opening.lua
-- @include told.lua
-- @include retrying.lua

local ids, codes, changed = {}, {}, {}
local before, after
for i = 3, #ARGV do
  local id = ARGV[i]
  local state
  ids[#ids + 1] = id
  if call('EXISTS', base .. id) == 0 then
    codes[#codes + 1] = -1
  else
    for _, name in ipairs({'failed', 'completed'}) do
      if not state and call('ZREM', base .. name, id) == 1 then state = name end
    end
    codes[#codes + 1] = state and 1 or -3
  end
  if state then
    before, after = state, retry(id, state, ARGV[2] == '1')
    changed[#changed + 1] = id
  end
end
if #changed > 0 then signal_work() end
tell_jobs(ids, changed, before, after)
return {codes, told}
