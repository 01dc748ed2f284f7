-- Included by advance.lua, after endings.lua: moves jobs to `active` and locks them (wire 6.3).
-- Leaves: fetched, due_ms, limited_ms; and the marker where work is left for others.

local fetched, due_ms, limited_ms = {}, -1, 0
local paused, concurrency = meta[1], tonumber(meta[2])
local limit = tonumber(meta[3])

-- How many jobs may start now: of `want`, what global concurrency and rate limit leave.
local function room()
  local left = want - #fetched
  if left > 0 and concurrency then left = math.min(left, concurrency - call('LLEN', base .. 'active')) end
  local started = left > 0 and tonumber(call('GET', base .. 'limiter'))
  if started and (started >= 9007199254740991 or (limit and started >= limit)) then
    local ttl = call('PTTL', base .. 'limiter')
    if ttl > 0 then limited_ms = ttl end
    if ttl == 0 then call('DEL', base .. 'limiter') end
    if ttl > 0 then return 0 end
    started = 0
  end
  if limit and left > 0 then left = math.min(left, math.max(limit - (started or 0), 0)) end
  return left
end

-- Up to `n` ids in the order they run: waiting before prioritized (wire 6.4).
local function take(n)
  local ids = {}
  local waiting = call('LRANGE', base .. 'wait', -n, -1)
  if #waiting > 0 then
    call('LTRIM', base .. 'wait', 0, -#waiting - 1)
    for i = #waiting, 1, -1 do ids[#ids + 1] = waiting[i] end
  end
  if #ids < n then
    local scored = call('ZPOPMIN', base .. 'prioritized', n - #ids)
    for i = 1, #scored, 2 do ids[#ids + 1] = scored[i] end
    if #ids == 0 then call('DEL', base .. 'pc') end
  end
  return ids
end

-- Lock a job and count its start. An id whose hash is gone is a ghost and is dropped (trap T14); so is an old marker.
local function start(id)
  local key = base .. id
  local hash = call('HGETALL', key)
  if #hash == 0 or string.sub(id, 1, 2) == '0:' then return false end
  local starts, doomed = 0, false
  for i = 1, #hash, 2 do
    if hash[i] == 'ats' then starts = tonumber(hash[i + 1]) or 0 end
    if hash[i] == 'defa' then doomed = true end
  end
  call('SET', key .. ':lock', token, 'PX', lock_ms)
  call('HSET', key, 'processedOn', now, 'pb', worker, 'ats', starts + 1)
  call('XADD', events, '*', 'event', 'active', 'jobId', id, 'prev', 'waiting')
  fetched[#fetched + 1] = {id, hash}
  if string.sub(id, 1, 7) == 'repeat:' then advance_schedule(id, hash) end
  return true, doomed
end

if want > 0 then
  promote_due()
  while not paused do
    local n = room()
    if n < 1 then break end
    local ids = take(n)
    if #ids == 0 then break end
    local active, counted = {}, 0
    for _, id in ipairs(ids) do
      local started, doomed = start(id)
      if started then active[#active + 1] = id end
      if started and not doomed then counted = counted + 1 end
    end
    if #active > 0 then call('LPUSH', base .. 'active', unpack(active)) end
    if limit and counted > 0 and call('INCRBY', base .. 'limiter', counted) == counted then
      call('PEXPIRE', base .. 'limiter', meta[4] or 1000)
    end
  end
end

if #fetched < want then
  local first = call('ZRANGE', base .. 'delayed', 0, 0, 'WITHSCORES')
  if first[2] then due_ms = math.max(math.floor(first[2] / 4096) - now, 0) end
end

-- An emptied queue says so, but for what already waits for its time (wire 5.6).
if final and #fetched == 0 and limited_ms == 0 and (want == 0 or (due_ms < 0 and not paused))
  and call('EXISTS', base .. 'wait', base .. 'active', base .. 'prioritized') == 0 then
  call('XADD', events, '*', 'event', 'drained')
end

-- The chain rule (wire 5.4): who took work wakes the next one, as long as there is work that may be taken.
if #codes > 0 or #fetched > 0 then
  local left = call('EXISTS', base .. 'wait', base .. 'prioritized') > 0
  local blocked = paused or (concurrency and left and call('LLEN', base .. 'active') >= concurrency)
  if left and not blocked then call('ZADD', base .. 'marker', 0, '0') end
end
