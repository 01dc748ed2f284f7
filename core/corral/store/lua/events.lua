-- Included by scripts that put jobs into a container.
-- Needs in scope: base (`<prefix>:<queue>:`), now (Unix ms), max_events (text).

-- @include damage.lua
local events = base .. 'events'

-- Write an entry and trim the stream to the queue's own cap (wire 5.6).
local function emit_capped(...)
  return call('XADD', events, 'MAXLEN', '~', max_events, '*', 'event', ...)
end

-- Add a job that is due at `due` ms, behind those of the same millisecond (wire 5.2).
local function add_delayed(id, due)
  local score, highest = due * 4096, due * 4096 + 4095
  local last = call('ZREVRANGEBYSCORE', base .. 'delayed', highest, score, 'WITHSCORES', 'LIMIT', 0, 1)
  if last[2] then score = math.min(tonumber(last[2]) + 1, highest) end
  call('ZADD', base .. 'delayed', score, id)
  emit_capped('delayed', 'jobId', id, 'delay', due)
end

local function add_prioritized(id, priority)
  local tie = call('INCR', base .. 'pc') % 4294967296
  call('ZADD', base .. 'prioritized', priority * 4294967296 + tie, id)
end

-- Wake a worker for the earliest delayed job (wire 5.4).
local function signal_delayed()
  local first = call('ZRANGE', base .. 'delayed', 0, 0, 'WITHSCORES')
  if first[2] then call('ZADD', base .. 'marker', first[2] / 4096, '1') end
end
