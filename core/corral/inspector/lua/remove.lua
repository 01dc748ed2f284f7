-- Remove jobs, and what was added below them (wire 6.17).
--
-- KEYS  1 `<prefix>:<queue>:`   2, and the end of ARGV: see told.lua
-- ARGV  1 offset_ms   2.. ids
-- Returns {codes, told}, one code per id: 1 removed; 0 it, or a job below it, is locked by a worker; -1 no such job; -8 it is the
--         iteration that a schedule waits for. Nothing of a job is changed where its code is not 1.

-- @include opening.lua
-- @include told.lua
-- @include removal.lua

local BELOW = {processed = 'HKEYS', failed = 'HKEYS', unsuccessful = 'ZRANGE', dependencies = 'SMEMBERS'}

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
  for suffix, read in pairs(BELOW) do
    local held = read == 'ZRANGE' and call(read, key .. ':' .. suffix, 0, -1) or call(read, key .. ':' .. suffix)
    for _, child in ipairs(held) do found[#found + 1] = child end
  end
  return found
end

local function is_locked(key)
  if call('EXISTS', key .. ':lock') == 1 then return true end
  for _, child in ipairs(children_of(key)) do
    if is_locked(child) then return true end
  end
  return false
end

local function take_out(id, container)
  if container == 'wait' or container == 'active' or container == 'paused' then
    call('LREM', base .. container, 0, id)
  elseif container then
    call('ZREM', base .. container, id)
  end
end

local function remove(id, container)
  local key = base .. id
  local own = base
  for _, child in ipairs(children_of(key)) do
    local queue, child_id = place_of(child)
    if queue and call('EXISTS', child) == 1 then
      base, events = queue, queue .. 'events'
      remove(child_id, container_of(child_id))
      base, events = own, own .. 'events'
    end
  end
  take_out(id, container)
  drop_deduplication(id)
  remove_jobs({id})
  emit_capped('removed', 'jobId', id, 'prev', container or 'unknown')
end

local ids, codes, changed = {}, {}, {}
local before
for i = 2, #ARGV do
  local id = ARGV[i]
  ids[#ids + 1] = id
  local key, container = base .. id, container_of(id)
  if not container and call('EXISTS', key) == 0 then
    codes[#codes + 1] = -1
  elseif is_current_iteration(id) then
    codes[#codes + 1] = -8
  elseif is_locked(key) then
    codes[#codes + 1] = 0
  else
    leave_parent(key)
    remove(id, container)
    codes[#codes + 1] = 1
    changed[#changed + 1] = id
    before = state_in(container)
  end
end
tell_jobs(ids, changed, before)
return {codes, told}
