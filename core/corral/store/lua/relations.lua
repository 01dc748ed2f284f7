-- Included by endings.lua: what a job's ending changes for its parent and for its deduplication id
-- (wire 6.20, 6.22). Only other clients make such jobs, but any of our workers may run them.

-- Put a parent whose children are done into the container of its own options; the caller has taken
-- it out of the old one. Where its last child was removed and not finished, BullMQ lets it run
-- next, without regard to its delay and priority.
local function enqueue_parent(queue, id, next_to_run)
  local key = queue .. id
  local hash = next_to_run and {} or call('HMGET', key, 'delay', 'priority')
  local delay, priority = tonumber(hash[1]) or 0, tonumber(hash[2]) or 0
  local queue_meta = call('HMGET', queue .. 'meta', 'paused', 'concurrency')
  -- Events are written by `pcall`: once the parent is in its container, an error must not put it
  -- into a second one.
  if delay > 0 then
    call('ZADD', queue .. 'delayed', (now + delay) * 4096, id)
    redis.pcall('XADD', queue .. 'events', '*', 'event', 'delayed', 'jobId', id, 'delay', now + delay)
    local first = call('ZRANGE', queue .. 'delayed', 0, 0, 'WITHSCORES')
    redis.pcall('ZADD', queue .. 'marker', first[2] / 4096, '1')
    return
  end
  local limit = tonumber(queue_meta[2])
  local blocked = queue_meta[1] or (limit and call('LLEN', queue .. 'active') >= limit)
  if priority > 0 then
    local tie = call('INCR', queue .. 'pc') % 4294967296
    call('ZADD', queue .. 'prioritized', priority * 4294967296 + tie, id)
  else
    local is_paused = queue_meta[1]
    -- @include wait_list.lua
    call('RPUSH', wait_list, id)
  end
  if not blocked then redis.pcall('ZADD', queue .. 'marker', 0, '0') end
  redis.pcall('XADD', queue .. 'events', '*', 'event', 'waiting', 'jobId', id, 'prev', 'waiting-children')
end

-- Run a step after an id was taken out of a container. If it fails, put the id back, so that all
-- may be tried again. `put_back` uses redis.call: its keys are not the damaged ones (damage.lua).
local function or_put_back(put_back, step, ...)
  local done, err = pcall(step, ...)
  if not done then
    put_back()
    error(err, 0)
  end
end

local function release_parent(queue, id, next_to_run)
  local waiting = queue .. 'waiting-children'
  if call('ZREM', waiting, id) == 0 then return end
  or_put_back(function() redis.call('ZADD', waiting, now, id) end, enqueue_parent, queue, id, next_to_run)
end

local function fail_parent(queue, id, child)
  local key = queue .. id
  call('ZADD', key .. ':unsuccessful', now, child)
  if call('EXISTS', key) == 0 then return end
  local waits = call('ZREM', queue .. 'waiting-children', id) == 1
  local delayed = not waits and call('ZREM', queue .. 'delayed', id) == 1
  if not waits and not delayed and call('ZSCORE', queue .. 'failed', id) then return end
  local container = waits and 'waiting-children' or 'delayed'
  or_put_back(function()
    if waits or delayed then redis.call('ZADD', queue .. container, waits and now or now * 4096, id) end
  end, function()
    call('HSET', key, 'defa', 'child ' .. child .. ' failed')
    if delayed then call('HSET', key, 'delay', 0) end
    if waits or delayed then enqueue_parent(queue, id) end
  end)
end

-- The parent's queue (`<prefix>:<queue>:`) and id, from the child's `parent` field, else from the
-- key's last colon.
local function parent_of(key, parent_key)
  local text = call('HGET', key, 'parent')
  local known, parent = pcall(cjson.decode, text or '')
  if known and type(parent) == 'table' and parent.queueKey and parent.id then
    return parent.queueKey .. ':', parent.id, parent
  end
  local queue, id = string.match(parent_key, '^(.*:)([^:]*)$')
  return queue, id, {}
end

local function end_child(kind, key, text, parent_key)
  local queue, id, policy = parent_of(key, parent_key)
  local fails = kind == 'f'
  if fails and not (policy.fpof or policy.cpof or policy.idof or policy.rdof) then return end
  if call('SREM', parent_key .. ':dependencies', key) == 0 then return end
  or_put_back(function() redis.call('SADD', parent_key .. ':dependencies', key) end, function()
    if fails and policy.fpof then return fail_parent(queue, id, key) end
    if not fails then
      call('HSET', parent_key .. ':processed', key, text)
    elseif policy.cpof or policy.idof then
      call('HSET', parent_key .. ':failed', key, text)
    end
    if (fails and policy.cpof) or call('SCARD', parent_key .. ':dependencies') == 0 then release_parent(queue, id) end
  end)
end

-- A removed job no longer holds its parent back.
local function leave_parent(key)
  local parent_key = call('HGET', key, 'parentKey')
  if not parent_key or call('SREM', parent_key .. ':dependencies', key) == 0 then return end
  if call('SCARD', parent_key .. ':dependencies') == 0 then
    local queue, id = parent_of(key, parent_key)
    release_parent(queue, id, true)
  end
end

-- @include place.lua

-- The job that was put aside while the owner of its deduplication id was active.
local function enqueue_next(deduplication, next_key)
  local fields = call('HMGET', next_key, 'name', 'data', 'opts', 'jid', 'pk', 'pd', 'pdk', 'rjk')
  local opts, id = cjson.decode(fields[3] or ''), fields[4]
  if type(opts) ~= 'table' or not (fields[1] and fields[2] and id) then error('it holds no job', 0) end
  -- SADD would create a missing key: an empty waiting list would become a set
  if fields[7] and fields[7] ~= (fields[5] or '') .. ':dependencies' then error('its pdk is not of its parent', 0) end
  local key = base .. id
  if string.find(KEY_WORDS, id, 1, true) and repairs().is_key_word(id) then error('its job has the id ' .. id, 0) end
  if call('EXISTS', key) == 1 then -- another client has made it meanwhile
    call('HGET', key, 'name') -- fails where it is no job
    emit_capped('duplicated', 'jobId', id)
    return call('DEL', next_key)
  end
  local delay, priority = tonumber(opts.delay) or 0, tonumber(opts.priority) or 0
  local hash = {'name', fields[1], 'data', fields[2], 'opts', fields[3], 'timestamp', now, 'delay', delay,
    'priority', priority, 'deid', deduplication}
  for field, value in pairs({parentKey = fields[5], parent = fields[6], rjk = fields[8]}) do
    if value then
      hash[#hash + 1] = field
      hash[#hash + 1] = value
    end
  end
  or_put_back(function()
    redis.pcall('ZREM', base .. 'delayed', id)
    redis.call('UNLINK', key)
  end, function()
    call('INCR', base .. 'id')
    call('HSET', key, unpack(hash))
    if fields[7] then call('SADD', fields[7], key) end
    call('XADD', events, '*', 'event', 'added', 'jobId', id, 'name', fields[1])
    local ttl = type(opts.de) == 'table' and not opts.de.keepLastIfActive and tonumber(opts.de.ttl)
    if ttl and ttl > 0 then
      call('SET', base .. 'de:' .. deduplication, id, 'PX', ttl)
    else
      call('SET', base .. 'de:' .. deduplication, id)
    end
    place_job(id, delay, now + delay, priority, opts.lifo)
    any_delayed = any_delayed or delay > 0
  end)
  call('DEL', next_key)
end

local function free_deduplication(id, key)
  local deduplication = call('HGET', key, 'deid')
  if not deduplication then return end
  local owner = base .. 'de:' .. deduplication
  local owns = call('GET', owner) == id and call('PTTL', owner) < 0
  local next_key = base .. 'dn:' .. deduplication
  if call('EXISTS', next_key) == 1 then enqueue_next(deduplication, next_key) end
  if owns and call('GET', owner) == id then call('DEL', owner) end
end

local function settle_relations(kind, id, key, text, parent_key, deduplicated)
  if deduplicated then free_deduplication(id, key) end
  if parent_key then end_child(kind, key, text, parent_key) end
end
