-- Take events out of the queue's log (wire 7).
--
-- KEYS  1 `<prefix>:<queue>:`   2, and the end of ARGV: see told.lua
-- ARGV  1 offset_ms   2 '1': the audit counts these events; '': it counts something else   3.. the events' ids
-- Returns {how many are gone, told}.

-- @include opening.lua
-- @include told.lua

local wrong = broken('events')
if wrong then return refusal(wrong) end
local gone = call('XDEL', events, unpack(ARGV, 3))
if gone > 0 then tell(nil, nil, nil, ARGV[2] == '1' and gone or 0) end
return {gone, told}
