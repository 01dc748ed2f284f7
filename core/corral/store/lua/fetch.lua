-- Included by advance.lua, after endings.lua: move jobs to `active` and lock them (wire 6.3). It
-- adds to `fetched` and `fetched_ids`, which have what lean_fetch.lua has fetched.
-- Leaves: fetched, fetched_ids, due_ms, limited_ms, held, cut; others_count: the count in `limiter`
-- where the queue has no rate limit, or nil; and the marker where jobs are left for other workers.
--
-- A job that stalled before may be what killed its worker. `suspects` of them may start here,
-- beside fresh jobs. The others stay where they wait, and up to LOOK of them are skipped.

local LOOK = 200
local due_ms, limited_ms, others_count = -1, 0, nil
local held, held_ids, held_prioritized = 0, {}, 0 -- all skipped; those of `wait`, taken out until the end; number in `prioritized`
local suspects, confirm_from = tonumber(ARGV[8]), tonumber(ARGV[9]) or math.huge
local bytes, cut = tonumber(ARGV[10]), false -- rest of max_bytes; whether a job was left because of it
local paused, concurrency = meta[1], tonumber(meta[2])
local limit = tonumber(meta[3])
if concurrency ~= concurrency then concurrency = nil end -- some client's NaN
if limit ~= limit then limit = nil end

-- How many of the wanted jobs the global concurrency and the rate limit allow now.
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
  elseif started and not limit then
    others_count = started -- by another client's worker with a limit of its own (wire 6.19)
  end
  if limit and left > 0 then left = math.min(left, math.max(limit - (started or 0), 0)) end
  return left
end

local function is_iteration(id) return string.find(id, 'repeat:', 1, true) == 1 end

-- Read a job that might start, before its id leaves its container; its approximate size is
-- subtracted from `bytes`. Returns its hash, how often it was started, whether it must fail without
-- being run, and whether its start must be confirmed. Or nil and a reason: 'ghost', its hash is
-- gone (trap T14); 'held', it stalled before and may not start now; or a sentence why it goes into
-- the quarantine.
local function read_job(id)
  local key = base .. id
  if string.find(KEY_WORDS, id, 1, true) and repairs().is_key_word(id) then
    return nil, key .. ' is no job: its id is the name of a key of the queue'
  end
  local head = string.sub(id, 1, 2)
  if head == 're' and is_iteration(id) and call('ZSCORE', base .. 'repeat', string.sub(id, 8)) then
    return nil, key .. ' is no job but a job scheduler'
  end
  if held > 0 and suspects < 1 then -- do not read the payloads of suspects that may not start
    local found = redis.pcall('HMGET', key, 'stc', 'defa')
    if not found.err and (tonumber(found[1]) or 0) > 0 and not found[2] then return nil, 'held' end
  end
  local hash = redis.pcall('HGETALL', key)
  if hash.err then return nil, key .. ' is damaged: ' .. repairs().text_of(hash) end
  if #hash == 0 or head == '0:' then return nil, 'ghost' end
  local starts, stalls, doomed, size = 0, 0, false, 0
  for i = 1, #hash, 2 do
    local field = hash[i]
    if field == 'data' then size = #hash[i + 1]
    elseif field == 'ats' then starts = tonumber(hash[i + 1]) or 0
    elseif field == 'defa' then doomed = true
    elseif field == 'stc' then stalls = tonumber(hash[i + 1]) or 0 end
  end
  if #hash > 16 then -- the job has run before: traces and progress count, too
    size = 0
    for i = 2, #hash, 2 do size = size + #hash[i] end
  end
  if stalls > 0 and not doomed then
    if suspects < 1 then return nil, 'held' end
    suspects = suspects - 1
  end
  bytes = bytes - size
  return hash, starts, doomed, stalls >= confirm_from and not doomed
end

-- Lock a job that is in `active`, and count its start. It was read as a hash, so only its event can
-- fail.
local function start(job, starts, doomed)
  local id = job[1]
  local key = base .. id
  call('SET', key .. ':lock', token, 'PX', lock_ms)
  call('HSET', key, 'processedOn', now, 'pb', worker, 'ats', starts + 1)
  if redis.pcall('XADD', events, '*', 'event', 'active', 'jobId', id, 'prev', 'waiting').err then
    attempt(nil, call, 'XADD', events, '*', 'event', 'active', 'jobId', id, 'prev', 'waiting')
  end
  fetched[#fetched + 1] = job
  if not is_iteration(id) then return doomed end
  local hash = job[2]
  local done, reason = attempt(nil, advance_schedule, id, hash)
  if done then return doomed end
  -- If it ran, its schedule would end with it. So it fails, and may be retried when the key is
  -- repaired.
  call('HSET', key, 'defa', 'job refused: ' .. reason)
  hash[#hash + 1], hash[#hash + 2] = 'defa', 'job refused: ' .. reason
  return true
end

-- One round: up to `n` ids in the order they run, waiting before prioritized (wire 6.4). All are
-- read before the first one leaves its container, and all are in `active` before the first one is
-- changed. Returns whether another round may find more.
local function take_round(n)
  local list, scores = base .. 'wait', nil
  local ids = call('LRANGE', list, -n, -1)
  local waiting = #ids
  if waiting == 0 then
    local scored = call('ZRANGE', base .. 'prioritized', held_prioritized, held_prioritized + n - 1, 'WITHSCORES')
    if #scored == 0 then
      local dropped = held_prioritized == 0 and redis.pcall('GETDEL', base .. 'pc')
      if type(dropped) == 'table' then repairs().pass_on_refusal(dropped) end -- another type is left alone
      return false
    end
    scores = {}
    for i = #scored - 1, 1, -2 do
      ids[#ids + 1] = scored[i]
      scores[scored[i]] = scored[i + 1]
    end
  end

  local started, jobs, starts, doomed, confirmed, odd, held_now = {}, {}, {}, nil, nil, nil, nil
  for i = #ids, 1, -1 do
    local id, at = ids[i], #started + 1
    local hash, found, fails, confirms = read_job(id)
    if hash then
      if bytes < 0 and (at > 1 or #fetched > 0) then
        -- The reply is full: this job and those behind it stay where they are.
        cut, waiting = true, waiting - i
        if scores then
          for behind = 1, i do scores[ids[behind]] = nil end
        end
        break
      end
      started[at], jobs[at], starts[at] = id, {id, hash}, found
      if fails then
        doomed = doomed or {}
        doomed[at] = true
      end
      if confirms then
        confirmed = confirmed or {}
        confirmed[#confirmed + 1] = id
      end
    elseif found == 'held' then
      held_now = held_now or {}
      held_now[#held_now + 1] = id
    elseif found ~= 'ghost' then
      odd = odd or {}
      odd[#odd + 1] = {id, found}
    end
  end

  if held_now then
    held = held + #held_now
    if scores then
      held_prioritized = held_prioritized + #held_now
      for _, id in ipairs(held_now) do scores[id] = nil end
    end
  end
  -- The first write, and a full store allows this one.
  if not scores then
    call('LTRIM', list, 0, -waiting - 1)
    for _, id in ipairs(held_now or {}) do held_ids[#held_ids + 1] = id end
  else
    local gone = {}
    for id in pairs(scores) do gone[#gone + 1] = id end
    if #gone > 0 then call('ZREM', base .. 'prioritized', unpack(gone)) end
  end
  if odd then
    for _, each in ipairs(odd) do repairs().set_aside(each[1], scores and 'prioritized' or 'wait', each[2]) end
  end
  if #started == 0 then return held < LOOK and not cut end
  local pushed = redis.pcall('LPUSH', base .. 'active', unpack(started))
  if type(pushed) == 'table' then
    for i = #started, 1, -1 do
      local id = started[i]
      if scores then call('ZADD', base .. 'prioritized', scores[id], id) else call('RPUSH', list, id) end
    end
    error(pushed, 0)
  end
  if confirmed then
    redis.pcall('SADD', 'corral:' .. base .. 'unconfirmed', unpack(confirmed))
    redis.pcall('PEXPIRE', 'corral:' .. base .. 'unconfirmed', 86400000)
  end
  local counted = 0
  for at = 1, #jobs do
    if not start(jobs[at], starts[at], doomed and doomed[at]) then counted = counted + 1 end
  end
  if #fetched_ids == 0 then
    fetched_ids = started
  else
    for _, id in ipairs(started) do fetched_ids[#fetched_ids + 1] = id end
  end
  if limit and counted > 0 then
    local count = redis.pcall('INCRBY', base .. 'limiter', counted)
    if type(count) == 'table' then repairs().mend() end
    if count == counted then call('PEXPIRE', base .. 'limiter', tonumber(meta[4]) or 1000) end
  end
  return held < LOOK and not cut
end

-- Fetch, then set due_ms, marker and event by how much was found. After a failure it runs again,
-- and goes on.
local function fetch_jobs()
  if want > 0 then promote_due() end
  while want > 0 and not paused do
    local n = room()
    if n < 1 or not take_round(n) then break end
  end
  if #fetched < want then
    local first = call('ZRANGE', base .. 'delayed', 0, 0, 'WITHSCORES')
    if first[2] then due_ms = math.max(math.floor(first[2] / 4096) - now, 0) end
  end
  -- The chain rule (wire 5.4): a worker that took jobs wakes the next one, as long as there are
  -- more that may start.
  if #codes > 0 or #fetched > 0 then
    local left = #held_ids > 0 or call('EXISTS', base .. 'wait', base .. 'prioritized') > 0
    local blocked = paused or (concurrency and left and call('LLEN', base .. 'active') >= concurrency)
    if left and not blocked then call('ZADD', base .. 'marker', 0, '0') end
  end
  -- An emptied queue writes an event; delayed jobs keep it from that only if they were looked up
  -- (wire 5.6).
  if final and #fetched == 0 and limited_ms == 0 and (want == 0 or (due_ms < 0 and not paused)) and #held_ids == 0
    and call('EXISTS', base .. 'wait', wait_list, base .. 'active', base .. 'prioritized') == 0 then
    call('XADD', events, '*', 'event', 'drained')
  end
end

attempt(nil, fetch_jobs)
for i = #held_ids, 1, -1 do call('RPUSH', base .. 'wait', held_ids[i]) end
