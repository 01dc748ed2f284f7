-- Give a job another payload, as BullMQ's update of data does (wire 6.13).
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms   2 id   3 payload: JSON
-- Returns {code}: 1 it has it; 0 a worker holds the job; -1 no such job; -3 it is completed, or nowhere.

-- @include opening.lua

local id = ARGV[2]
local key = base .. id
if call('EXISTS', key) == 0 then return {-1} end
local container = container_of(id)
if container == 'active' or call('EXISTS', key .. ':lock') == 1 then return {0} end
if not container or container == 'completed' then return {-3} end
call('HSET', key, 'data', ARGV[3])
return {1}
