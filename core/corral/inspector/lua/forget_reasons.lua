-- Delete what workers have recorded of why attempts failed: see attempts.lua.
--
-- KEYS  1 `<prefix>:<queue>:`   2 the audit's stream: see audit_entry.lua
-- ARGV  1 offset_ms
--       then the arguments of audit_entry.lua
-- Returns {how many reasons were deleted, audited}. How many attempts failed is still counted.

-- @include queue_state.lua
-- @include audit_entry.lua
-- @include failed_attempts.lua

local this, before = failed_reasons()
local hour = math.floor(now / 3600000)
for back = 0, 2 do call('UNLINK', 'corral:' .. base .. 'reasons:' .. string.format('%.0f', hour - back)) end
local gone = (#this + #before) / 2
if gone > 0 then write_entry(nil, nil, nil, 0) end
return {gone, audited}
