-- Delete entries of the queue's event stream (wire 7).
--
-- KEYS  1 `<prefix>:<queue>:`   2 the audit's stream: see audit_entry.lua
-- ARGV  1 offset_ms   2 '1' if the audit counts these events, '' if it counts something else
--       3.. the entries' ids
--       then the arguments of audit_entry.lua
-- Returns {how many were deleted, audited}.

-- @include queue_state.lua
-- @include audit_entry.lua

local wrong = first_damaged('events')
if wrong then return refusal(wrong) end
local gone = call('XDEL', events, unpack(ARGV, 3))
if gone > 0 then write_entry(nil, nil, nil, ARGV[2] == '1' and gone or 0) end
return {gone, audited}
