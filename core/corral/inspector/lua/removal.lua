-- Included after opening.lua: what must be settled before a job's keys may go (wire 6.17, 6.20).

local any_delayed = false -- relations.lua sets it where it makes the job that a deduplication id kept back
-- @include relations.lua
-- @include remove_jobs.lua

-- The iteration that a schedule waits for: without it the schedule ends (wire 6.17, code -8). The second value says what
-- is damaged, where nobody can tell.
local function is_current_iteration(id)
  if string.sub(id, 1, 7) ~= 'repeat:' then return false end
  local schedule = call('HGET', base .. id, 'rjk')
  if not schedule then return false end
  local wrong = broken('repeat')
  if wrong then return false, wrong end
  local tick = call('ZSCORE', base .. 'repeat', schedule)
  return tick and id == 'repeat:' .. schedule .. ':' .. tick
end

-- A removed job owns its deduplication id no longer; what was kept back for it goes with it.
local function drop_deduplication(id)
  local deduplication = call('HGET', base .. id, 'deid')
  if deduplication and redis.pcall('GET', base .. 'de:' .. deduplication) == id then
    call('DEL', base .. 'de:' .. deduplication, base .. 'dn:' .. deduplication)
  end
end

-- A parent's queue (`<prefix>:<queue>:`) and id; or nil, and what is damaged.
local function known_parent(key, parent_key)
  local known, queue, parent = pcall(parent_of, key, parent_key)
  if known and type(queue) == 'string' and (type(parent) == 'string' or type(parent) == 'number') then
    return queue, parent
  end
  return nil, key .. ' is a hash whose parent cannot be read'
end

-- What is damaged of all that is written when a job leaves its parent, and with a parent of the same queue maybe its own.
local function damaged_family(key)
  local seen = {}
  while not seen[key] do
    seen[key] = true
    local wrong = damage(key, 'hash')
    local parent_key = not wrong and call('HGET', key, 'parentKey')
    if not parent_key then return wrong end
    wrong = damage(parent_key .. ':dependencies', 'set')
    if wrong or call('SISMEMBER', parent_key .. ':dependencies', key) == 0 then return wrong end
    local queue, parent = known_parent(key, parent_key)
    if not queue then return parent end
    for _, name in ipairs({'waiting-children', 'wait', 'active', 'meta', 'marker', 'events'}) do
      wrong = damage(queue .. name, TYPES[name])
      if wrong then return wrong end
    end
    if queue ~= base then return nil end
    key = base .. parent
  end
  return nil
end
