-- Included by endings.lua: how long finished jobs stay (wire 6.7), and the per-minute counts (wire 6.23).

local SUFFIXES = {'', ':logs', ':dependencies', ':processed', ':failed', ':unsuccessful'}

-- Delete what belongs to jobs; their locks end on their own.
local function remove_jobs(ids, orphan)
  local keys = {}
  for _, id in ipairs(ids) do
    if orphan then pcall(leave_parent, base .. id) end -- a parent that is damaged keeps nothing else from going
    for _, suffix in ipairs(SUFFIXES) do keys[#keys + 1] = base .. id .. suffix end
    if #keys > 6000 then
      call('UNLINK', unpack(keys))
      keys = {}
    end
  end
  if #keys > 0 then call('UNLINK', unpack(keys)) end
end

-- Jobs of equal retention that finish together enter their set, and it is trimmed, once. `unkept` are those that could
-- not enter it, by id: they are in `active` again.
-- `own`: those that entered it under our default, by kind; nil without any. See kept.lua.
local kept, unkept, own = {}, {}, nil

local function trim_set(set, failed, count, age, limit)
  if age ~= '' then
    local oldest = now - age * 1000
    local gone = call('ZRANGE', set, oldest, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, limit)
    remove_jobs(gone, failed)
    for from = 1, #gone, 5000 do call('ZREM', set, unpack(gone, from, math.min(from + 4999, #gone))) end
  end
  if count > 0 then
    local gone = call('ZRANGE', set, 0, -count - 1)
    if #gone > 0 then
      remove_jobs(gone, failed)
      call('ZREMRANGEBYRANK', set, 0, -count - 1)
    end
  end
end

local function trim_kept()
  if not kept.kind then return end
  local set = base .. (kept.kind == 'c' and 'completed' or 'failed')
  local entered = type(redis.pcall('ZADD', set, unpack(kept.scored))) == 'number'
    or attempt(nil, call, 'ZADD', set, unpack(kept.scored))
  if entered and kept.limit == '0' then
    own = own or {}
    local same = own[kept.kind]
    if same then
      for _, each in ipairs(kept.scored) do same.scored[#same.scored + 1] = each end
    else
      own[kept.kind] = kept
    end
  elseif entered and (kept.age ~= '' or kept.count > 0) then
    pcall(trim_set, set, kept.kind == 'f', kept.count, kept.age, kept.limit)
  end
  for i = 2, entered and 0 or #kept.scored, 2 do
    call('RPUSH', base .. 'active', kept.scored[i])
    unkept[kept.scored[i]] = true
  end
  kept = {}
end

local function retain(kind, id, keep_count, age, limit)
  if keep_count == 0 then return end
  if kept.kind ~= kind or kept.count ~= keep_count or kept.age ~= age or kept.limit ~= limit then
    trim_kept()
    kept = {kind = kind, count = keep_count, age = age, limit = limit, scored = {}}
  end
  kept.scored[#kept.scored + 1] = now
  kept.scored[#kept.scored + 1] = id
end

-- One entry per minute, the newest first. Run by `pcall`: a count that fails changes nothing of an ending.
local function count_minutes(name, finished)
  local points = tonumber(ARGV[6])
  if finished == 0 or points == 0 then return end
  local key = base .. 'metrics:' .. name
  local before = call('HINCRBY', key, 'count', finished) - finished
  local previous = call('HMGET', key, 'prevTS', 'prevCount')
  if not previous[1] then
    call('HSET', key, 'prevTS', now, 'prevCount', 0)
    return
  end
  local minutes = math.min(math.floor(now / 60000) - math.floor(previous[1] / 60000), points)
  if minutes < 1 then return end
  call('LPUSH', key .. ':data', before - (tonumber(previous[2]) or 0))
  for from = 1, minutes - 1, 5000 do
    local zeros = {}
    for i = 1, math.min(5000, minutes - from) do zeros[i] = 0 end
    call('LPUSH', key .. ':data', unpack(zeros))
  end
  call('LTRIM', key .. ':data', 0, points - 1)
  call('HSET', key, 'prevCount', before, 'prevTS', now)
end
