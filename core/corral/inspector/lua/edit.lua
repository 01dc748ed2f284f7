-- Give a job that has not been read another payload, as BullMQ's `updateData` writes it.
--
-- KEYS  1 `<prefix>:<queue>:`   2, and the end of ARGV: see told.lua
-- ARGV  1 offset_ms   2 id   3 the payload, JSON text   4 the names of the fields that differ, a JSON list
-- Returns {code, told}: 1 done; -1 no such job; -3 it runs, is completed, waits for its children, or is in no container.

-- @include opening.lua
-- @include told.lua

local id = ARGV[2]
if call('EXISTS', base .. id) == 0 then return {-1, told} end
local state = state_in(container_of(id))
if state ~= 'waiting' and state ~= 'prioritized' and state ~= 'delayed' and state ~= 'failed' then return {-3, told} end
call('HSET', base .. id, 'data', ARGV[3])
tell(id, nil, {changed = cjson.decode(ARGV[4])})
return {1, told}
