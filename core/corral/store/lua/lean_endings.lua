-- Included by advance.lua: the fast path of endings. All jobs have completed, under one retention
-- that keeps them at first. It writes what endings.lua would write, with fewer commands and no
-- closure. Before it writes, it checks for everything that only endings.lua can do: a parent, a
-- child, a deduplication id, a lock that is not ours, a damaged key, a full store.
-- Leaves: ended, how many endings it has applied, always the first ones; free, whether neither
-- `delayed` nor `stalled` exists; final, middle, second and rolled, see advance.lua; odd, whether a
-- key must be repaired.

if count > 0 then
  local events, active = base .. 'events', base .. 'active'
  local keep_count, keep_age, keep_limit = ARGV[SHAPES + SHAPE + 6], ARGV[SHAPES + SHAPE + 7], ARGV[SHAPES + SHAPE + 8]
  local fit = keep_count ~= '0' -- the fast path may go on
  for number = 1, tonumber(ARGV[11]) do
    local shape = SHAPES + number * SHAPE
    fit = fit and ARGV[shape + 1] == 'c' and (ARGV[shape + 10] == '' or ARGV[shape + 10] == 'l')
      and ARGV[shape + 6] == keep_count and ARGV[shape + 7] == keep_age and ARGV[shape + 8] == keep_limit
  end
  local ids, keys, scored, others, mine, tail = {}, {}, {}, {}, {}, nil
  if fit then
    for i = 1, count do
      local at = ENDINGS + i * ENDING
      local id = ARGV[at + 2]
      local key = base .. id
      ids[i], keys[i], scored[2 * i - 1], scored[2 * i] = id, key, now, id
      others[2 * i - 1], others[2 * i] = key .. ':dependencies', key .. ':unsuccessful'
      fit = fit and tokens[i] == ARGV[SHAPES + ARGV[at + 1] * SHAPE + 2] and not mine[id]
      mine[id] = true
    end
  end
  if fit then
    others[2 * count + 1], others[2 * count + 2] = base .. 'delayed', base .. 'stalled'
    free = call('EXISTS', unpack(others)) == 0
    fit = free or call('EXISTS', unpack(others, 1, 2 * count)) == 0
  end
  -- A parent, or an error of a key that is no hash. A job may get a parent while it runs.
  for i = 1, count do fit = fit and not redis.pcall('HGET', keys[i], 'parentKey') end
  if fit and count > 1 then
    tail = redis.pcall('LRANGE', active, -count, -1)
    fit = not tail.err
  end

  -- The first write. It shows whether the store accepts writes, and whether `events` is a stream.
  local entry, completed = nil, base .. 'completed'
  if fit then
    entry = redis.pcall('XADD', events, 'MAXLEN', '~', max_events, '*', 'event', 'completed', 'jobId', ids[1],
      'returnvalue', ARGV[ENDINGS + ENDING + 3], 'prev', 'active')
    fit = not entry.err
  end
  if fit then
    for i = 1, tail and count or 0 do
      fit = fit and mine[tail[i]]
      mine[tail[i] or ''] = nil -- so a second entry of the same id does not fit
    end
    if tail and fit then -- these jobs run longest
      call('LTRIM', active, 0, -count - 1)
      ended = count
    else
      tail = nil
      -- @include middle.lua
      while ended < count do
        local started = middle > 0 and call('HGET', keys[ended + 1], 'processedOn')
        local side = (tonumber(started) or 0) > middle and 1 or -1
        -- Not active, or `active` cannot be read: endings.lua does this ending and those behind it.
        if redis.pcall('LREM', active, side, ids[ended + 1]) ~= 1 then break end
        ended = ended + 1
      end
      for i = count, ended + 1, -1 do ids[i], scored[2 * i], scored[2 * i - 1] = nil, nil, nil end
    end
    if ended > 0 and type(redis.pcall('ZADD', completed, unpack(scored))) == 'table' then
      if tail then
        call('RPUSH', active, unpack(tail))
      else
        for i = ended, 1, -1 do call('RPUSH', active, ids[i]) end
      end
      ended = 0
    end
    if ended == 0 then redis.pcall('XDEL', events, entry) end
  end

  if ended > 0 then
    local largest = 0
    final = true
    for i = 1, ended do
      local at = ENDINGS + i * ENDING
      local text = ARGV[at + 3]
      call('HSET', keys[i], 'returnvalue', text, 'finishedOn', now, 'atm', ARGV[SHAPES + ARGV[at + 1] * SHAPE + 3])
      if i > 1 then
        call('XADD', events, '*', 'event', 'completed', 'jobId', ids[i], 'returnvalue', text, 'prev', 'active')
      end
      if #text > largest then largest = #text end
    end
    -- @include bound_events.lua
    if keep_limit == '0' then
      -- @include remove_jobs.lua
      -- @include kept.lua
      pcall(record_kept, 'completed', scored)
      pcall(remove_due, 'completed', tonumber(keep_count), keep_age)
    elseif keep_age ~= '' or tonumber(keep_count) > 0 then
      -- @include remove_jobs.lua
      -- @include trim_set.lua
      pcall(trim_set, completed, tonumber(keep_count), keep_age, keep_limit)
    end
    call('UNLINK', unpack(locks, 1, ended))
    if not free then redis.pcall('SREM', base .. 'stalled', unpack(ids)) end
    local points, key = tonumber(ARGV[6]), base .. 'metrics:completed'
    local sum = points > 0 and redis.pcall('HINCRBY', key, 'count', ended)
    if type(sum) == 'table' then
      odd = true
    elseif sum and (sum == ended or rolled ~= math.floor(now / 60000)) then
      -- @include roll_minutes.lua
      odd = not pcall(roll_minutes, key, sum - ended, points)
      if not odd then rolled = math.floor(now / 60000) end
    end
  end
end
