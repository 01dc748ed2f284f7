-- Give a job that has not been read another payload, as BullMQ's `updateData` writes it.
--
-- KEYS  1 `<prefix>:<queue>:`   2, and the end of ARGV: see told.lua
-- ARGV  1 offset_ms   2 id   3 the payload, JSON text   4 the names of the fields that differ, a JSON list
-- Returns {code, told}: 1 done; 0 a worker holds it; -1 no such job; -3 it is completed, or in no container.

-- @include opening.lua
-- @include told.lua

local id = ARGV[2]
if call('EXISTS', base .. id) == 0 then return {-1, told} end
local wrong = damage(base .. id, 'hash')
local container, unread = container_of(id)
if wrong or unread then return refusal(wrong or unread) end
if container == 'active' or call('EXISTS', base .. id .. ':lock') == 1 then return {0, told} end
if not container or container == 'completed' then return {-3, told} end
call('HSET', base .. id, 'data', ARGV[3])
tell(id, nil, {changed = cjson.decode(ARGV[4])})
return {1, told}
