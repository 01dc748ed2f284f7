-- Remove jobs and their children (wire 6.17).
--
-- KEYS  1 `<prefix>:<queue>:`   2 the audit's stream: see audit_entry.lua
-- ARGV  1 offset_ms   2.. ids   then the arguments of audit_entry.lua
-- Returns {codes, audited}, one code per id: 1 removed; 0 a worker holds the lock of the job or of
--         a child; -1 no such job; -8 it is the next iteration of a schedule; a text: a key of the
--         job, or of a child, is damaged. A job whose code is not 1 is not changed at all.

-- @include queue_state.lua
-- @include audit_entry.lua
-- @include removal.lua

local CHILD_KEYS = {
  processed = {'HKEYS', 'hash'}, failed = {'HKEYS', 'hash'}, unsuccessful = {'ZRANGE', 'zset'},
  dependencies = {'SMEMBERS', 'set'},
}

-- A job's queue (`<prefix>:<queue>:`) and id, from its key. Ids may contain colons, names of queues
-- may not (trap T10). For another prefix, whose length is unknown, the last colon is taken.
local prefix = string.match(KEYS[1], '^(.*:)[^:]+:$')

local function place_of(key)
  local colon = string.sub(key, 1, #prefix) == prefix and string.find(key, ':', #prefix + 1, true)
  if colon then return string.sub(key, 1, colon), string.sub(key, colon + 1) end
  return string.match(key, '^(.*:)([^:]*)$')
end

-- The keys of a job's direct children.
local function children_of(key)
  local found = {}
  for suffix, how in pairs(CHILD_KEYS) do
    local name = key .. ':' .. suffix
    local held = how[1] == 'ZRANGE' and call('ZRANGE', name, 0, -1) or call(how[1], name)
    for _, child in ipairs(held) do found[#found + 1] = child end
  end
  return found
end

-- Call a function with another queue as `base`.
local function with_queue(queue, act, ...)
  local own = base
  base, events = queue, queue .. 'events'
  local first, second = act(...)
  base, events = own, own .. 'events'
  return first, second
end

local containers = {} -- the children's containers, by key

-- Why a job or one of its children cannot be removed: 0 if a worker holds a lock, a text if a key
-- is damaged; or nil.
local function obstacle(key, seen)
  if seen[key] then return nil end
  seen[key] = true
  if call('EXISTS', key .. ':lock') == 1 then return 0 end
  local wrong = damage(key, 'hash')
  for suffix, how in pairs(CHILD_KEYS) do wrong = wrong or damage(key .. ':' .. suffix, how[2]) end
  if wrong then return wrong end
  for _, child in ipairs(children_of(key)) do
    local queue, id = place_of(child)
    local found = obstacle(child, seen)
    if not found and queue and call('EXISTS', child) == 1 then
      containers[child], found = with_queue(queue, container_of, id)
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

local gone = {} -- by key: children that name each other must not cause an endless recursion

local function remove(id, container)
  local key = base .. id
  gone[key] = true
  for _, child in ipairs(children_of(key)) do
    local queue, child_id = place_of(child)
    if queue and not gone[child] and call('EXISTS', child) == 1 then
      with_queue(queue, remove, child_id, containers[child])
    end
  end
  take_out(id, container)
  drop_deduplication(id)
  remove_jobs({id})
  emit('removed', 'jobId', id, 'prev', container or 'unknown')
end

-- The code of a job that cannot be removed, or nil.
local function refusal_code(id, container, unread)
  local key = base .. id
  if not container and not unread and call('EXISTS', key) == 0 then return -1 end
  local wrong = unread or damage(key, 'hash')
  if wrong then return wrong end
  local is_current
  is_current, wrong = is_current_iteration(id)
  if is_current then return -8 end
  return wrong or obstacle(key, {}) or damaged_family(key)
end

local ids, codes, changed = {}, {}, {}
local before
for i = 2, #ARGV do
  local id = ARGV[i]
  ids[#ids + 1] = id
  local container, unread = container_of(id)
  local code = refusal_code(id, container, unread)
  if not code then
    leave_parent(base .. id)
    remove(id, container)
    code = 1
    changed[#changed + 1] = id
    before = state_in(container)
  end
  codes[#codes + 1] = code
end
write_entry_of_jobs(ids, changed, before)
return {codes, audited}
