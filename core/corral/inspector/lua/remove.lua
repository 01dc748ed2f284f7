-- Remove jobs, and what was added below them (wire 6.17).
--
-- KEYS  1 `<prefix>:<queue>:`   2, and the end of ARGV: see told.lua
-- ARGV  1 offset_ms   2.. ids
-- Returns {codes, told}, one code per id: 1 removed; 0 it, or a job below it, is locked by a worker; -1 no such job; -8 it is the
--         iteration that a schedule waits for; a text says which key of it, or of a job below it, is damaged. Nothing of
--         a job is changed where its code is not 1.

-- @include opening.lua
-- @include told.lua
-- @include removal.lua

local BELOW = {
  processed = {'HKEYS', 'hash'}, failed = {'HKEYS', 'hash'}, unsuccessful = {'ZRANGE', 'zset'},
  dependencies = {'SMEMBERS', 'set'},
}

-- A job's queue (`<prefix>:<queue>:`) and id, from its key. Ids may hold colons, and names of queues may not (trap T10);
-- a queue below another prefix is told by the last colon.
local prefix = string.match(KEYS[1], '^(.*:)[^:]+:$')

local function place_of(key)
  local colon = string.sub(key, 1, #prefix) == prefix and string.find(key, ':', #prefix + 1, true)
  if colon then return string.sub(key, 1, colon), string.sub(key, colon + 1) end
  return string.match(key, '^(.*:)([^:]*)$')
end

-- The keys of the jobs right below a job.
local function children_of(key)
  local found = {}
  for suffix, how in pairs(BELOW) do
    local name = key .. ':' .. suffix
    local held = how[1] == 'ZRANGE' and call('ZRANGE', name, 0, -1) or call(how[1], name)
    for _, child in ipairs(held) do found[#found + 1] = child end
  end
  return found
end

-- Do something with another queue's keys for one's own.
local function within(queue, act, ...)
  local own = base
  base, events = queue, queue .. 'events'
  local first, second = act(...)
  base, events = own, own .. 'events'
  return first, second
end

local containers = {} -- of the jobs below, by key

-- Why a job, or one below it, cannot go: 0 where a worker holds it, a text where a key is damaged; nil where it can.
local function hindrance(key, seen)
  if seen[key] then return nil end
  seen[key] = true
  if call('EXISTS', key .. ':lock') == 1 then return 0 end
  local wrong = damage(key, 'hash')
  for suffix, how in pairs(BELOW) do wrong = wrong or damage(key .. ':' .. suffix, how[2]) end
  if wrong then return wrong end
  for _, child in ipairs(children_of(key)) do
    local queue, id = place_of(child)
    local found = hindrance(child, seen)
    if not found and queue and call('EXISTS', child) == 1 then
      containers[child], found = within(queue, container_of, id)
    end
    if found then return found end
  end
  return nil
end

local function take_out(id, container)
  if container == 'wait' or container == 'active' or container == 'paused' then
    call('LREM', base .. container, 0, id)
  elseif container then
    call('ZREM', base .. container, id)
  end
end

local gone = {} -- by key: children that name each other end nothing

local function remove(id, container)
  local key = base .. id
  gone[key] = true
  for _, child in ipairs(children_of(key)) do
    local queue, child_id = place_of(child)
    if queue and not gone[child] and call('EXISTS', child) == 1 then within(queue, remove, child_id, containers[child]) end
  end
  take_out(id, container)
  drop_deduplication(id)
  remove_jobs({id})
  emit('removed', 'jobId', id, 'prev', container or 'unknown')
end

-- The code of a job that stays; nil where it can go.
local function refused(id, container, unread)
  local key = base .. id
  if not container and not unread and call('EXISTS', key) == 0 then return -1 end
  local wrong = unread or damage(key, 'hash')
  if wrong then return wrong end
  local is_current
  is_current, wrong = is_current_iteration(id)
  if is_current then return -8 end
  return wrong or hindrance(key, {}) or damaged_family(key)
end

local ids, codes, changed = {}, {}, {}
local before
for i = 2, #ARGV do
  local id = ARGV[i]
  ids[#ids + 1] = id
  local container, unread = container_of(id)
  local code = refused(id, container, unread)
  if not code then
    leave_parent(base .. id)
    remove(id, container)
    code = 1
    changed[#changed + 1] = id
    before = state_in(container)
  end
  codes[#codes + 1] = code
end
tell_jobs(ids, changed, before)
return {codes, told}
