-- Included first by the scripts of the inspector, and by retry_existing.lua: reads the queue's
-- `meta` and the store's clock.
--
-- Needs:  KEYS 1 `<prefix>:<queue>:`   ARGV 1 offset_ms, added to the server's time
-- Leaves: base, now (ms), meta (paused, concurrency), max_events, what events.lua leaves, and the
--         functions below.
--
-- Scripts read a key, and thereby notice that it has the wrong type, before they change anything. A
-- script that needs such a key replies with the error `DAMAGED <key> is a <type>, not a <type>`,
-- and has changed nothing.

local base = KEYS[1]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000) + ARGV[1]
local meta = redis.pcall('HMGET', base .. 'meta', 'paused', 'concurrency', 'opts.maxLenEvents')
-- @include meta_refused.lua
if meta.err then meta = {false, false, false} end -- scripts that need `meta` check it by `first_damaged`
local max_events = string.match(meta[3] or '', '^%d+$') or '10000'
-- @include events.lua

local TYPES, damage, first_damaged = repairs().types, repairs().wrong_type, repairs().first_wrong

local function refusal(wrong) return redis.error_reply('DAMAGED ' .. wrong) end

-- @include read.lua

-- Write an event, and trim the stream as BullMQ does. A damaged stream is ignored: the change
-- itself has been made.
local function emit(...) redis.pcall('XADD', events, 'MAXLEN', '~', max_events, '*', 'event', ...) end

-- Wake a worker if it may start a job (wire 5.1, 5.4). This only saves time: workers look by
-- themselves within seconds.
local function signal_work()
  local limit = tonumber(meta[2])
  local active = limit and redis.pcall('LLEN', base .. 'active')
  if not meta[1] and not (type(active) == 'number' and active >= limit) then
    redis.pcall('ZADD', base .. 'marker', 0, '0')
  end
end

-- The place of a job that is to wait, which depends on its priority. Returns the score in
-- `prioritized` (a number) or the key of the list (wait_list.lua); or nil and the damage. Only the
-- counter `pc` that breaks ties is changed: gaps in it do no harm.
local function waiting_place(key)
  local wrong = damage(key, 'hash')
  if wrong then return nil, wrong end
  local priority = tonumber(call('HGET', key, 'priority')) or 0
  if not (priority > 0) then
    local queue, is_paused = base, meta[1]
    -- @include wait_list.lua
    wrong = damage(wait_list, 'list')
    if wrong then return nil, wrong end
    return wait_list
  end
  wrong = first_damaged('prioritized', 'pc')
  if wrong then return nil, wrong end
  local last = call('GET', base .. 'pc')
  if last and not string.match(last, '^%-?%d+$') then return nil, base .. 'pc is a string, not a number' end
  return priority * 4294967296 + call('INCR', base .. 'pc') % 4294967296
end

-- Put a job into the place that `waiting_place` returned. The caller has removed it from its
-- container. Returns its state.
local function put_into_waiting(id, place, previous, lifo)
  local has_priority = type(place) == 'number'
  if has_priority then
    call('ZADD', base .. 'prioritized', place, id)
  else
    call(lifo and 'RPUSH' or 'LPUSH', place, id)
  end
  if previous then
    emit('waiting', 'jobId', id, 'prev', previous)
  else
    emit('waiting', 'jobId', id)
  end
  return has_priority and 'prioritized' or 'waiting'
end

-- The container that holds a job (wire 6.25), or nil. If a container is damaged, the job may be in
-- there: then the second value is the damage.
local function container_of(id)
  local wrong
  local function holds(command, name)
    local place = redis.pcall(command, base .. name, id)
    if type(place) ~= 'table' then return place end
    wrong = wrong or first_damaged(name)
    return false
  end
  for _, name in ipairs({'completed', 'failed', 'delayed', 'prioritized'}) do
    if holds('ZSCORE', name) then return name end
  end
  for _, name in ipairs({'active', 'wait', 'paused'}) do
    if holds('LPOS', name) then return name end
  end
  if holds('ZSCORE', 'waiting-children') then return 'waiting-children' end
  return nil, wrong
end
