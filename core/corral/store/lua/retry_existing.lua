-- Move failed jobs back to waiting, for calls that enqueue their ids again (wire 6.16).
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms   2.. ids
-- Returns one code per id: 1 it is waiting again, and counts attempts from zero; 0 it has not
--         failed, or not any more; a text: a key that it needs is damaged. A job whose code is not
--         1 is not changed.

-- @include queue_state.lua
-- @include retry_job.lua

local codes, changed = {}, false
local unread = first_damaged('failed')
for i = 2, #ARGV do
  local id, code = ARGV[i], unread or 0
  if not unread and call('ZSCORE', base .. 'failed', id) then
    local place, wrong = place_for_retry(id, 'failed')
    code = wrong or 1
    if not wrong then
      call('ZREM', base .. 'failed', id)
      retry(id, 'failed', true, place)
      changed = true
    end
  end
  codes[#codes + 1] = code
end
if changed then signal_work() end
-- A repeated call must write something, too: Valkey's WAIT waits only for what its own connection
-- has written.
call('INCRBY', base .. 'id', 0)
return codes
