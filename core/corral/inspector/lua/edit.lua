-- Replace the payload of a job that no worker has read, as BullMQ's `updateData` does.
--
-- KEYS  1 `<prefix>:<queue>:`   2 the audit's stream: see audit_entry.lua
-- ARGV  1 offset_ms   2 id   3 the payload, JSON text
--       4 the names of the changed fields, a JSON list
--       5 the SHA-1 of the payload that is replaced, in hexadecimal digits
--       then the arguments of audit_entry.lua
-- Returns {code, audited}: 1 done; 0 a worker holds the job; -1 no such job; -3 it is completed, or
--         in no container; -11 another payload is stored.

-- @include queue_state.lua
-- @include audit_entry.lua

local id = ARGV[2]
if call('EXISTS', base .. id) == 0 then return {-1, audited} end
local wrong = damage(base .. id, 'hash')
local container, unread = container_of(id)
if wrong or unread then return refusal(wrong or unread) end
if container == 'active' or call('EXISTS', base .. id .. ':lock') == 1 then return {0, audited} end
if not container or container == 'completed' then return {-3, audited} end
if redis.sha1hex(call('HGET', base .. id, 'data') or '') ~= ARGV[5] then return {-11, audited} end
call('HSET', base .. id, 'data', ARGV[3])
write_entry(id, nil, {changed = cjson.decode(ARGV[4])})
return {1, audited}
