-- Included by scripts that take jobs back from dead workers (wire 6.12).
-- Needs in scope: base (`<prefix>:<queue>:`), now (Unix ms), max_stalled (number).
-- Leaves: recovered, the ids that went back to the waiting list.

local meta = redis.pcall('HMGET', base .. 'meta', 'paused', 'concurrency', 'opts.maxLenEvents')
-- @include check_meta.lua
local max_events = meta[3] and string.find(meta[3], '^%d+$') and meta[3] or '10000'
-- @include events.lua
local queue, is_paused = base, meta[1]
-- @include wait_list.lua
local recovered, taken = {}, nil

-- The first write, and a full store allows this one: after it the script may write everything.
attempt(nil, call, 'XTRIM', events, 'MAXLEN', '~', max_events)

-- An iteration of a schedule that still exists is never failed for stalling: that would end the
-- schedule.
local function is_iteration(schedule)
  return schedule and (call('EXISTS', base .. 'repeat:' .. schedule) == 1 or call('ZSCORE', base .. 'repeat', schedule))
end

-- Put a job without a lock at the head of the waiting list, or mark it so that the next worker
-- fails it. A stall is counted unless it is known that no processor ran (confirm.lua).
local function recover(id)
  local key = base .. id
  local found = redis.pcall('HMGET', key, 'stc', 'rjk', 'name', 'data')
  local stalls = found.err and 0 or (tonumber(found[1]) or 0) + 1
  local fails = not found.err and stalls > max_stalled and not is_iteration(found[2])
  if call('LREM', base .. 'active', 1, id) == 0 then return end
  taken = id
  if found.err or repairs().is_key_word(id) then
    local why = found.err and repairs().text_of(found) or 'its id is the name of a key of the queue'
    repairs().set_aside(id, 'active', key .. ' is damaged: ' .. why)
    taken = nil
    return
  end
  if not found[3] and not found[4] and call('EXISTS', key) == 0 then
    taken = nil
    return
  end
  call('RPUSH', wait_list, id)
  taken = nil
  recovered[#recovered + 1] = id
  call('XADD', events, '*', 'event', 'waiting', 'jobId', id, 'prev', 'active')
  if redis.pcall('SREM', 'corral:' .. base .. 'unconfirmed', id) == 1 then return end
  call('HSET', key, 'stc', stalls)
  if fails then call('HSET', key, 'defa', 'job stalled more than allowable limit') end
  call('XADD', events, '*', 'event', 'stalled', 'jobId', id)
end

local function put_back_taken()
  if taken then redis.call('LPUSH', base .. 'active', taken) end
  taken = nil
end

-- Take a job back. A job that cannot be taken back stays in `active`.
local function try_to_recover(id)
  return attempt(put_back_taken, recover, id)
end

local function signal_recovered()
  if #recovered == 0 or meta[1] then return end
  if tonumber(meta[2]) and call('LLEN', base .. 'active') >= tonumber(meta[2]) then return end
  call('ZADD', base .. 'marker', 0, '0')
end
