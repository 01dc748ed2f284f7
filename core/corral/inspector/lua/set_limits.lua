-- Change the concurrency or the rate limit of the whole queue (wire 6.18, 6.19).
--
-- KEYS  1 `<prefix>:<queue>:`   2 the audit's stream: see audit_entry.lua
-- ARGV  1 offset_ms   then pairs: a field of `meta` ('concurrency', 'max', 'duration'), and its
--         value; '' removes the field
--       then the arguments of audit_entry.lua
-- Returns {0, audited}. A worker is woken if jobs are waiting: a wider limit may let one start.

-- @include queue_state.lua
-- @include audit_entry.lua

local wrong = first_damaged('meta')
if wrong then return refusal(wrong) end

local before, after, differs = {}, {}, false
for i = 2, #ARGV, 2 do
  local field, held = ARGV[i], call('HGET', base .. 'meta', ARGV[i])
  before[field] = held and (tonumber(held) or held) or cjson.null
  after[field] = ARGV[i + 1] == '' and cjson.null or tonumber(ARGV[i + 1])
  differs = differs or before[field] ~= after[field]
  if ARGV[i + 1] == '' then
    call('HDEL', base .. 'meta', field)
  else
    call('HSET', base .. 'meta', field, ARGV[i + 1])
  end
end
meta[2] = call('HGET', base .. 'meta', 'concurrency')
if call('EXISTS', base .. 'wait', base .. 'prioritized') > 0 then signal_work() end
if differs then write_entry(nil, before, after) end
return {0, audited}
