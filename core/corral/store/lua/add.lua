-- Add jobs (wire 6.1, 6.2).
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms, added to the server's time
--       then per job: id, name, data, opts, delay_ms, priority, lifo ('1' or ''), nonce ('' without)
-- Returns one number per job: 1 this job was made (by this call, or by an earlier try of it), 0 its id existed.
-- Errors  DAMAGED  a key has a wrong type; no job was made
--         NOPERM, CROSSSLOT  refused in the middle, and undone; no job was made
--
-- A repeated call makes no second job. An id without a nonce was made by the client for one call, so whoever has it
-- is that call's own job; an id that the caller chose carries a nonce in opts that tells our try from another's job.

local base = KEYS[1]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000) + ARGV[1]
local meta = redis.pcall('HMGET', base .. 'meta', 'paused', 'concurrency', 'opts.maxLenEvents')
-- @include check_meta.lua
local max_events = meta[3] and string.find(meta[3], '^%d+$') and meta[3]
if not max_events then
  max_events = '10000'
  redis.call('HSET', base .. 'meta', 'opts.maxLenEvents', max_events)
end
-- @include events.lua

local seen, delayed, ready = {}, false, false

-- First in, first out: plain jobs enter the left end in one command. A lifo job enters the right end, a delayed or a
-- prioritized one another container, so their order among the plain ones does not matter.
local function add_all()
  local FIELDS = 8
  local count = (#ARGV - 1) / FIELDS
  local keys, plain, replies, attempts = {}, {}, {}, 0
  for i = 1, count do keys[i] = base .. ARGV[2 + (i - 1) * FIELDS] end
  local any_exists = call('EXISTS', unpack(keys)) > 0
  for i = 1, count do
    local at, key = 2 + (i - 1) * FIELDS, keys[i]
    local id, nonce = ARGV[at], ARGV[at + 7]
    local exists = seen[id] or (any_exists and call('EXISTS', key) == 1)
    local ours = exists and not seen[id]
      and (nonce == '' or string.find(call('HGET', key, 'opts') or '', nonce, 1, true) ~= nil)
    if not ours then attempts = attempts + 1 end
    if exists and not ours then emit_capped('duplicated', 'jobId', id) end
    if not exists then
      local delay, priority = tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5])
      seen[id] = true
      call('HSET', key, 'name', ARGV[at + 1], 'data', ARGV[at + 2], 'opts', ARGV[at + 3],
        'timestamp', now, 'delay', ARGV[at + 4], 'priority', ARGV[at + 5])
      call('XADD', events, '*', 'event', 'added', 'jobId', id, 'name', ARGV[at + 1])
      if delay > 0 then
        add_delayed(id, now + delay)
        delayed = true
      else
        ready = true
        if priority > 0 then
          add_prioritized(id, priority)
        elseif ARGV[at + 6] == '1' then
          call('RPUSH', base .. 'wait', id)
        else
          plain[#plain + 1] = id
        end
        emit_capped('waiting', 'jobId', id)
      end
    end
    replies[i] = (ours or not exists) and 1 or 0
  end
  if attempts > 0 then call('INCRBY', base .. 'id', attempts) end
  if #plain > 0 then call('LPUSH', base .. 'wait', unpack(plain)) end
  return replies
end

local done, replies = pcall(add_all)
if not done then
  -- No job is left without a container: all are made, or none.
  local function take_back(...)
    local reply = redis.pcall(...)
    if type(reply) == 'table' and repairs().late_refusal(reply) then error(reply, 0) end
  end

  local function undo()
    for id in pairs(seen) do
      call('UNLINK', base .. id)
      if call('EXISTS', base .. 'delayed') == 1 then take_back('ZREM', base .. 'delayed', id) end
      if call('EXISTS', base .. 'prioritized') == 1 then take_back('ZREM', base .. 'prioritized', id) end
      if call('EXISTS', base .. 'wait') == 1 then take_back('LREM', base .. 'wait', 0, id) end
    end
    seen, delayed, ready = {}, false, false
  end

  local known, made, reply = pcall(repairs().try_again, replies, undo, add_all)
  if not known then
    -- Refused in the middle. Where all was undone, the first word promises that no job was made.
    local word = repairs().late_refusal(made)
    if word and next(seen) == nil then
      return redis.error_reply(word .. ' ' .. string.gsub(repairs().text_of(made), '^%-?ERR ', ''))
    end
    error(made, 0)
  end
  if not made then return redis.error_reply(damage.broken or 'DAMAGED ' .. reply) end
  replies = reply
end

if delayed then attempt(nil, signal_delayed) end
if ready and not meta[1] and not (tonumber(meta[2]) and call('LLEN', base .. 'active') >= tonumber(meta[2]))
  and type(redis.pcall('ZADD', base .. 'marker', 0, '0')) == 'table' then
  attempt(nil, call, 'ZADD', base .. 'marker', 0, '0')
end
return replies
