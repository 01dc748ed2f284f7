-- Included first by every script here.
-- Needs: KEYS 1 `<prefix>:<queue>:`   ARGV 1 offset_ms, added to the server's time
-- Leaves: base, now, meta (paused, concurrency), max_events, what events.lua leaves, and the functions below.
--
-- A key of the wrong type is met by reading, before anything is changed: a script that cannot do its work without that
-- key ends with the error reply `DAMAGED <key> is a <type>, not a <type>`, and has changed nothing.

local base = KEYS[1]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000) + ARGV[1]
local meta = redis.pcall('HMGET', base .. 'meta', 'paused', 'concurrency', 'opts.maxLenEvents')
-- @include meta_refused.lua
if meta.err then meta = {false, false, false} end -- a script to which it matters asks `broken`
local max_events = string.match(meta[3] or '', '^%d+$') or '10000'
-- @include events.lua

local TYPES, damage, broken = repairs().types, repairs().wrong_type, repairs().first_wrong

local function refusal(wrong) return redis.error_reply('DAMAGED ' .. wrong) end

-- @include read.lua

-- An entry of the log, capped as BullMQ caps it. Where the log is damaged, what was done is done all the same.
local function emit(...) redis.pcall('XADD', events, 'MAXLEN', '~', max_events, '*', 'event', ...) end

-- Wake a worker, if one may start something (wire 5.1, 5.4). It is a hint: without it, workers look within seconds.
local function signal_work()
  local limit = tonumber(meta[2])
  local active = limit and redis.pcall('LLEN', base .. 'active')
  if not meta[1] and not (type(active) == 'number' and active >= limit) then
    redis.pcall('ZADD', base .. 'marker', 0, '0')
  end
end

-- Where the job of a key may go that is to run: its priority says. Nothing is changed but the counter that breaks ties, in
-- which a gap means nothing. Returns the score in `prioritized`, a number, or the key of the list (wait_list.lua); or nil,
-- and what is damaged.
local function way_back(key)
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
  wrong = broken('prioritized', 'pc')
  if wrong then return nil, wrong end
  local last = call('GET', base .. 'pc')
  if last and not string.match(last, '^%-?%d+$') then return nil, base .. 'pc is a string, not a number' end
  return priority * 4294967296 + call('INCR', base .. 'pc') % 4294967296
end

-- Put a job where `way_back` says; the caller has taken it out of its container. Returns the state it is in now.
local function put_back(id, way, previous, lifo)
  local has_priority = type(way) == 'number'
  if has_priority then
    call('ZADD', base .. 'prioritized', way, id)
  else
    call(lifo and 'RPUSH' or 'LPUSH', way, id)
  end
  if previous then
    emit('waiting', 'jobId', id, 'prev', previous)
  else
    emit('waiting', 'jobId', id)
  end
  return has_priority and 'prioritized' or 'waiting'
end

-- The container that holds a job (wire 6.25). Where none that can be read does, nil; and what is wrong with one that
-- cannot: it may be in there.
local function container_of(id)
  local wrong
  local function holds(command, name)
    local place = redis.pcall(command, base .. name, id)
    if type(place) ~= 'table' then return place end
    wrong = wrong or broken(name)
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
