-- Included by advance.lua: take jobs out of `active` and put each into the container of its ending
-- (wire 6.6 to 6.11). The first `ended` of them are done already, see lean_endings.lua.
-- Leaves: codes, one per ending; final, whether the last one finished its job for good; refused,
-- nil or flat: the place (from 1) of each job that was damaged and therefore failed, and the
-- reason.

local codes, refused = {}, nil
for i = 1, ended do codes[i] = 0 end

if count > ended then
  -- @include middle.lua
  local children = {}
  for i = 1, count do
    local key = base .. ARGV[ENDINGS + i * ENDING + 2]
    children[2 * i - 1], children[2 * i] = key .. ':dependencies', key .. ':unsuccessful'
  end
  local any_children = call('EXISTS', unpack(children)) > 0
  -- The first write, and a full store allows this one: after it the script may write everything.
  if type(redis.pcall('XTRIM', events, 'MAXLEN', '~', max_events)) == 'table' then
    attempt(nil, call, 'XTRIM', events, 'MAXLEN', '~', max_events)
  end

  local taken -- the job that was taken out of `active` and is in no other container yet

  -- The code of why this worker cannot end a job, or 0 (wire 5.5, 6.6). With any other code nothing
  -- was changed.
  local function refusal(i, id, held, completes)
    local key = base .. id
    if not tokens[i] and call('EXISTS', key) == 0 then return -1 end
    if completes and any_children then
      if call('SCARD', key .. ':dependencies') > 0 then return -4 end
      if call('ZCARD', key .. ':unsuccessful') > 0 then return -9 end
    end
    if not tokens[i] then return -2 end
    if tokens[i] ~= held then return -6 end
    local started = middle > 0 and redis.pcall('HGET', key, 'processedOn')
    if call('LREM', base .. 'active', (tonumber(started) or 0) > middle and 1 or -1, id) == 0 then
      -- We hold its lock, but it is in no container: `active` was damaged and removed while the job
      -- ran.
      for _, name in ipairs({'wait', 'paused'}) do
        if call('LPOS', base .. name, id) then return -3 end
      end
      for _, name in ipairs({'prioritized', 'delayed', 'waiting-children', 'completed', 'failed'}) do
        if call('ZSCORE', base .. name, id) then return -3 end
      end
      if call('EXISTS', key) == 0 then return -3 end
    end
    taken = id
    return 0
  end

  local any_delayed, relations = false, nil

  -- The functions for parents and deduplication ids, made by the first job that needs them;
  -- damage.lua says why.
  local function relate()
    if relations then return relations end
    -- @include relations.lua
    relations = {settle = settle_relations, leave_parent = leave_parent}
    return relations
  end

  local function leave_parent(key) return relate().leave_parent(key) end
  -- @include retention.lua

  local function put_back_taken()
    if not taken then return end
    for _, name in ipairs({'completed', 'failed', 'delayed', 'prioritized'}) do
      redis.pcall('ZREM', base .. name, taken)
    end
    if kept.scored and kept.scored[#kept.scored] == taken then
      kept.scored[#kept.scored], kept.scored[#kept.scored - 1] = nil, nil
      if #kept.scored == 0 then kept = {} end
    end
    redis.call('RPUSH', base .. 'active', taken)
    taken = nil
  end

  local counts = {c = 0, f = 0}

  local function emit_failed(id, text, shape)
    call('XADD', events, '*', 'event', 'failed', 'jobId', id, 'failedReason', text, 'prev', 'active')
    if tonumber(ARGV[shape + 3]) >= tonumber(ARGV[shape + 9]) then
      call('XADD', events, '*', 'event', 'retries-exhausted', 'jobId', id, 'attemptsMade', ARGV[shape + 3])
    end
  end

  local function finish(kind, id, key, text, shape)
    local atm, keep_count = ARGV[shape + 3], tonumber(ARGV[shape + 6])
    local parent = call('HGET', key, 'parentKey')
    local deduplicated = string.find(ARGV[shape + 10], 'd', 1, true)
    if parent or deduplicated then relate().settle(kind, id, key, text, parent, deduplicated) end
    if keep_count == 0 then
      remove_jobs({id}, kind == 'f' and leave_parent)
    elseif kind == 'c' then
      call('HSET', key, 'returnvalue', text, 'finishedOn', now, 'atm', atm)
    else
      call('HSET', key, 'failedReason', text, 'stacktrace', ARGV[shape + 4], 'finishedOn', now, 'atm', atm)
      call('HDEL', key, 'defa')
    end
    retain(kind, id, keep_count, ARGV[shape + 7], ARGV[shape + 8])
    if kind == 'f' then trim_kept() end -- removing a failed child releases its parent, which writes an event
    if kind == 'c' then
      call('XADD', events, '*', 'event', 'completed', 'jobId', id, 'returnvalue', text, 'prev', 'active')
    else
      emit_failed(id, text, shape)
    end
    counts[kind] = counts[kind] + 1
  end

  local function back_to_wait(id, key, lifo, front)
    local priority = tonumber(call('HGET', key, 'priority')) or 0
    if priority > 0 and front then
      call('ZADD', base .. 'prioritized', priority * 4294967296, id)
    elseif priority > 0 then
      add_prioritized(id, priority)
    elseif front or lifo then
      call('RPUSH', wait_list, id)
    else
      call('LPUSH', wait_list, id)
    end
    taken = nil
    emit_capped('waiting', 'jobId', id, 'prev', 'active')
  end

  local function apply(kind, id, key, text, shape)
    if kind == 'c' or kind == 'f' then return finish(kind, id, key, text, shape) end
    local delay = tonumber(ARGV[shape + 5])
    if kind == 'r' then
      call('HSET', key, 'failedReason', text, 'stacktrace', ARGV[shape + 4], 'atm', ARGV[shape + 3])
      if delay == 0 then return back_to_wait(id, key, string.find(ARGV[shape + 10], 'l', 1, true), false) end
    end
    if kind == 'r' or kind == 's' then
      call('HSET', key, 'delay', ARGV[shape + 5])
      add_delayed(id, now + delay)
      any_delayed = true
      return
    end
    -- A worker of BullMQ honours this value only if it has a limit of its own; ours always do
    -- (wire 6.19, trap T18).
    if kind == 'l' then
      call('GET', base .. 'limiter') -- fails on another type, which SET would overwrite
      limiter = '9007199254740991'
      call('SET', base .. 'limiter', limiter, 'PX', ARGV[shape + 5])
    end
    back_to_wait(id, key, nil, true)
  end

  local function end_job(i, kind, id, text, shape)
    if kind == 'r' and ARGV[shape + 5] == '0' then promote_due() end -- before the checks, and even if refused
    local code = refusal(i, id, ARGV[shape + 2], kind == 'c')
    if code == 0 then
      apply(kind, id, base .. id, text, shape)
      taken = nil
    end
    return code
  end

  for i = ended + 1, count do
    local at = ENDINGS + i * ENDING
    local shape, id, text = SHAPES + ARGV[at + 1] * SHAPE, ARGV[at + 2], ARGV[at + 3]
    local kind, held = ARGV[shape + 1], ARGV[shape + 2]
    local done, code = attempt(put_back_taken, end_job, i, kind, id, text, shape)
    if not done then
      -- End a damaged job, whatever its outcome: failed for good, and kept. Its parent and children
      -- are left alone.
      local function fail_damaged(reason)
        local key = base .. id
        if call('LREM', base .. 'active', -1, id) == 0 then error('not active', 0) end
        taken = id
        local written = redis.pcall('HSET', key, 'failedReason', reason, 'finishedOn', now, 'atm', ARGV[shape + 3])
        if type(written) == 'table' then -- its own key is no hash
          repairs().set_aside(id, 'active', key .. ' is damaged: ' .. repairs().text_of(written))
        else
          call('HDEL', key, 'defa')
          call('ZADD', base .. 'failed', now, id)
          taken = nil
          emit_failed(id, reason, shape)
          counts.f = counts.f + 1
        end
        taken = nil
      end

      local reason = 'job refused: ' .. code
      code = -20
      if not damage.broken and tokens[i] == held and attempt(put_back_taken, fail_damaged, reason) then
        code = 1
        refused = refused or {}
        refused[#refused + 1] = i
        refused[#refused + 1] = reason
        kind = 'f'
      end
    end
    codes[i] = code
    if code >= 0 then final = kind == 'c' or kind == 'f' end
  end

  trim_kept()
  if own then
    -- @include kept.lua
    for kind, group in pairs(own) do
      local name = kind == 'c' and 'completed' or 'failed'
      pcall(record_kept, name, group.scored)
      pcall(remove_due, name, group.count, group.age, kind == 'f' and leave_parent)
    end
  end
  local released, ended_ids, failed, largest = {}, {}, {}, 0
  for i = ended + 1, count do
    local id, size = ARGV[ENDINGS + i * ENDING + 2], #ARGV[ENDINGS + i * ENDING + 3]
    if size > largest then largest = size end
    if unkept[id] then codes[i] = -20 end
    if codes[i] >= 0 then released[#released + 1], ended_ids[#ended_ids + 1] = locks[i], id end
    local shape = SHAPES + ARGV[ENDINGS + i * ENDING + 1] * SHAPE
    if codes[i] == 0 and (ARGV[shape + 1] == 'f' or ARGV[shape + 1] == 'r') then
      failed[#failed + 1], failed[#failed + 2] = shape, id
    end
  end
  if #released > 0 then
    call('UNLINK', unpack(released))
    redis.pcall('SREM', base .. 'stalled', unpack(ended_ids)) -- the stalled check repairs another type
  end
  if counts.c > 0 and not pcall(count_minutes, 'completed', counts.c) then pcall(repairs().mend) end
  if counts.f > 0 and not pcall(count_minutes, 'failed', counts.f) then pcall(repairs().mend) end
  if #failed > 0 then
    local function record_failed_attempts()
      -- @include attempts.lua
    end
    -- Its keys hold figures only: what cannot be written to is dropped, and no ending fails for it.
    if not pcall(record_failed_attempts) then
      local hour = string.format('%.0f', math.floor(now / 3600000))
      redis.pcall('UNLINK', 'corral:' .. base .. 'attempts', 'corral:' .. base .. 'attempts:data',
        'corral:' .. base .. 'reasons:' .. hour)
    end
  end
  if any_delayed then attempt(nil, signal_delayed) end
  -- @include bound_events.lua
end
