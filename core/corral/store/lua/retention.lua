-- Included by endings.lua: how long finished jobs stay (wire 6.7), and the per-minute counts
-- (wire 6.23).

-- @include remove_jobs.lua
-- @include trim_set.lua
-- @include roll_minutes.lua

-- Jobs of equal retention that finish together enter their set in one command, and it is trimmed
-- once. `unkept` has, by id, the jobs that could not enter it; they are in `active` again.
-- `own` has, by kind, the jobs that entered it under our default retention; nil without any. See
-- kept.lua.
local kept, unkept, own = {}, {}, nil

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
    pcall(trim_set, set, kept.count, kept.age, kept.limit, kept.kind == 'f' and leave_parent)
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

-- Run by `pcall`: an ending stands even if its count fails.
local function count_minutes(name, finished)
  local points, key = tonumber(ARGV[6]), base .. 'metrics:' .. name
  if points > 0 then roll_minutes(key, call('HINCRBY', key, 'count', finished) - finished, points) end
end
