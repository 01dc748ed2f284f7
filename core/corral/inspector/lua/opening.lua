-- Included first by every script here.
-- Needs: KEYS 1 `<prefix>:<queue>:`   ARGV 1 offset_ms, added to the server's time
-- Leaves: base, now, meta (paused, concurrency), max_events, what events.lua leaves, and the functions below.

local base = KEYS[1]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000) + ARGV[1]
local meta = redis.call('HMGET', base .. 'meta', 'paused', 'concurrency', 'opts.maxLenEvents')
local max_events = meta[3] or '10000'
-- @include events.lua

-- Wake a worker, if one may start something (wire 5.1, 5.4).
local function signal_work()
  local limit = tonumber(meta[2])
  if not meta[1] and not (limit and call('LLEN', base .. 'active') >= limit) then
    call('ZADD', base .. 'marker', 0, '0')
  end
end

-- Put a job where its priority says; the caller has taken it out of its container. Returns the state it is in now.
local function put_back(id, previous, lifo)
  local priority = tonumber(call('HGET', base .. id, 'priority')) or 0
  if priority > 0 then
    add_prioritized(id, priority)
  else
    call(lifo and 'RPUSH' or 'LPUSH', base .. 'wait', id)
  end
  emit_capped('waiting', 'jobId', id, 'prev', previous)
  return priority > 0 and 'prioritized' or 'waiting'
end

-- The container that holds a job, or nil (wire 6.25).
local function container_of(id)
  for _, name in ipairs({'completed', 'failed', 'delayed', 'prioritized'}) do
    if call('ZSCORE', base .. name, id) then return name end
  end
  for _, name in ipairs({'active', 'wait', 'paused'}) do
    if call('LPOS', base .. name, id) then return name end
  end
  if call('ZSCORE', base .. 'waiting-children', id) then return 'waiting-children' end
  return nil
end
