-- Add jobs (wire 6.1, 6.2).
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms, added to the server's time
--       then per job: id, name, data, opts, delay_ms, priority, lifo ('1' or ''), nonce ('' without)
-- Returns one number per job: 1 this job was made (by this call, or by an earlier try of it), 0 its id existed.
--
-- A repeated call makes no second job. An id without a nonce was made by the client for one call, so whoever has it
-- is that call's own job; an id that the caller chose carries a nonce in opts that tells our try from another's job.

local base = KEYS[1]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000) + ARGV[1]
local meta = redis.call('HMGET', base .. 'meta', 'paused', 'concurrency', 'opts.maxLenEvents')
local max_events = meta[3]
if not max_events then
  max_events = '10000'
  redis.call('HSET', base .. 'meta', 'opts.maxLenEvents', max_events)
end
-- @include events.lua

local FIELDS = 8
local count = (#ARGV - 1) / FIELDS
local keys = {}
for i = 1, count do keys[i] = base .. ARGV[2 + (i - 1) * FIELDS] end
local any_exists = call('EXISTS', unpack(keys)) > 0

local function insert(at, id, key)
  local delay, priority = tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5])
  call('HSET', key, 'name', ARGV[at + 1], 'data', ARGV[at + 2], 'opts', ARGV[at + 3],
    'timestamp', now, 'delay', ARGV[at + 4], 'priority', ARGV[at + 5])
  call('XADD', events, '*', 'event', 'added', 'jobId', id, 'name', ARGV[at + 1])
  if delay > 0 then
    add_delayed(id, now + delay)
    return 'delayed'
  elseif priority > 0 then
    add_prioritized(id, priority)
  elseif ARGV[at + 6] == '1' then
    call('RPUSH', base .. 'wait', id)
  else
    emit_capped('waiting', 'jobId', id)
    return 'wait'
  end
  emit_capped('waiting', 'jobId', id)
  return 'other'
end

-- First in, first out: plain jobs enter the left end in one command. A lifo job enters the right end, a delayed or a
-- prioritized one another container, so their order among the plain ones does not matter.
local plain, delayed, ready = {}, false, false
local replies, seen = {}, {}
local attempts = 0
for i = 1, count do
  local at = 2 + (i - 1) * FIELDS
  local id, nonce = ARGV[at], ARGV[at + 7]
  local exists = seen[id] or (any_exists and call('EXISTS', keys[i]) == 1)
  local ours = exists and not seen[id]
    and (nonce == '' or string.find(call('HGET', keys[i], 'opts') or '', nonce, 1, true) ~= nil)
  if not ours then attempts = attempts + 1 end
  if exists and not ours then emit_capped('duplicated', 'jobId', id) end
  if not exists then
    seen[id] = true
    local kind = insert(at, id, keys[i])
    if kind == 'wait' then plain[#plain + 1] = id end
    delayed = delayed or kind == 'delayed'
    ready = ready or kind ~= 'delayed'
  end
  replies[i] = (ours or not exists) and 1 or 0
end
if attempts > 0 then call('INCRBY', base .. 'id', attempts) end
if #plain > 0 then call('LPUSH', base .. 'wait', unpack(plain)) end

if delayed then signal_delayed() end
if ready and not meta[1] and not (meta[2] and call('LLEN', base .. 'active') >= tonumber(meta[2])) then
  call('ZADD', base .. 'marker', 0, '0')
end
return replies
