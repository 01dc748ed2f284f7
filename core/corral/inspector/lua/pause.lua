-- Pause the queue: none of its jobs may start (wire 6.14). Running jobs continue.
--
-- Waiting jobs stay in `wait` only if BullMQ 6 says that it uses the queue, and BullMQ 5 has left
-- nothing in `paused`. Otherwise they are moved to `paused`, as BullMQ 5 does, because its `resume`
-- would overwrite `wait` (trap T1); every other client's `resume` moves them back. If the queue is
-- paused already, waiting jobs are moved all the same.
--
-- KEYS  1 `<prefix>:<queue>:`   2 the audit's stream: see audit_entry.lua
-- ARGV  1 offset_ms   then the arguments of audit_entry.lua
-- Returns {paused, audited}: 1 if this call paused the queue, 0 if it was paused already.

-- @include queue_state.lua
-- @include audit_entry.lua
-- @include put_aside.lua

local wrong = first_damaged('meta')
if wrong then return refusal(wrong) end
-- The first write: a full store refuses it before anything is changed.
if not meta[1] then call('HSET', base .. 'meta', 'paused', 1) end
local major = tonumber(string.match(call('HGET', base .. 'meta', 'version') or '', '^bullmq:(%d+)'))
local is_aside = call('EXISTS', base .. 'paused') == 1
if (is_aside or not major or major < 6) and not first_damaged('wait', 'paused') then put_aside() end
if meta[1] then return {0, audited} end
-- A damaged `marker` is the key of a job with that id (trap T9).
if not first_damaged('marker') then call('DEL', base .. 'marker') end
redis.pcall('XADD', events, '*', 'event', 'paused')
write_entry(nil, {paused = false}, {paused = true})
return {1, audited}
