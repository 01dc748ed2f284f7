-- Make finished jobs wait again (wire 6.16).
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms   2 reset ('1' to count attempts and starts from zero, or '')   3.. ids
-- Returns one code per id: 1 it waits again; -1 no such job; -3 it is neither failed nor completed.

-- @include opening.lua
-- @include retrying.lua

local codes, any = {}, false
for i = 3, #ARGV do
  local id = ARGV[i]
  local state
  if call('EXISTS', base .. id) == 0 then
    codes[#codes + 1] = -1
  else
    for _, name in ipairs({'failed', 'completed'}) do
      if not state and call('ZREM', base .. name, id) == 1 then state = name end
    end
    codes[#codes + 1] = state and 1 or -3
  end
  if state then
    retry(id, state, ARGV[2] == '1')
    any = true
  end
end
if any then signal_work() end
return codes
