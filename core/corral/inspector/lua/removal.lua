-- Included after queue_state.lua: what must be checked and updated before a job's keys are deleted
-- (wire 6.17, 6.20).

local any_delayed = false -- relations.lua sets it if it adds the job that a deduplication id held back
-- @include relations.lua
-- @include remove_jobs.lua

-- Whether a job is the next iteration of a schedule, which would end without it (wire 6.17,
-- code -8). The second value is the damage that makes the answer unknown.
local function is_current_iteration(id)
  if string.sub(id, 1, 7) ~= 'repeat:' then return false end
  local schedule = call('HGET', base .. id, 'rjk')
  if not schedule then return false end
  local wrong = first_damaged('repeat')
  if wrong then return false, wrong end
  local tick = call('ZSCORE', base .. 'repeat', schedule)
  return tick and id == 'repeat:' .. schedule .. ':' .. tick
end

-- Free the deduplication id of a job that is removed, and delete the job that this id held back.
local function drop_deduplication(id)
  local deduplication = call('HGET', base .. id, 'deid')
  if deduplication and redis.pcall('GET', base .. 'de:' .. deduplication) == id then
    call('DEL', base .. 'de:' .. deduplication, base .. 'dn:' .. deduplication)
  end
end

-- A parent's queue (`<prefix>:<queue>:`) and id; or nil and the damage.
local function known_parent(key, parent_key)
  local known, queue, parent = pcall(parent_of, key, parent_key)
  if known and type(queue) == 'string' and (type(parent) == 'string' or type(parent) == 'number') then
    return queue, parent
  end
  return nil, key .. ' is a hash whose parent cannot be read'
end

-- The damage of the keys that are written when a job leaves its parent, or nil. A parent in the
-- same queue may be removed as well, so that its own parent is checked, too.
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
