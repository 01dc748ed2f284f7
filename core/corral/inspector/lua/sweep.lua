-- Remove those of the next jobs of a container that are old enough (wire 6.17: clean, and drain). The iterations that
-- schedules wait for stay, and so do active jobs that a worker holds.
--
-- KEYS  1 `<prefix>:<queue>:`   2, and the end of ARGV: see told.lua
-- ARGV  1 offset_ms   2 container   3 age_ms; '' drains: any age, and no event
--       4 skip: so many jobs were looked at and left   5 looks: how many are looked at   6 limit: how many may go
-- Returns {{looked, removed, left}, told}; looked 0: there are no more; left: what is damaged of jobs that are left for that.

-- @include opening.lua
-- @include told.lua
-- @include removal.lua

local container, skip, looks, limit = ARGV[2], tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local drains = ARGV[3] == ''
local oldest = drains and math.huge or now - ARGV[3]
local set = base .. container
local is_list = container == 'wait' or container == 'active' or container == 'paused'
local is_finished = container == 'completed' or container == 'failed'

local wrong = broken(container)
if wrong then return refusal(wrong) end

local ids = {}
if is_list then -- from the right end, where the oldest are
  local found = call('LRANGE', set, -skip - looks, -skip - 1)
  for i = #found, 1, -1 do ids[#ids + 1] = found[i] end
elseif is_finished then
  ids = call('ZRANGEBYSCORE', set, '-inf', string.format('%.0f', oldest), 'LIMIT', skip, looks)
else
  ids = call('ZRANGE', set, skip, skip + looks - 1)
end

-- Whether a job goes. The second value says what is damaged where it stays for that.
local function goes(id)
  local key = base .. id
  if container == 'active' and call('EXISTS', key .. ':lock') == 1 then return false end
  local held = redis.pcall('HMGET', key, 'finishedOn', 'processedOn', 'timestamp', 'parentKey')
  if held.err then return false, damage(key, 'hash') end
  if not (drains or is_finished) and (tonumber(held[1] or held[2] or held[3]) or 0) > oldest then return false end
  local is_current, unread = is_current_iteration(id)
  unread = unread or not is_current and held[4] and damaged_family(key) or nil
  return not (is_current or unread), unread
end

-- A parent that loses its last child here: of the same queue it goes, too; of another it runs next, and unlike BullMQ
-- we tell who listens there.
local function unlink(id)
  local key = base .. id
  local parent_key = call('HGET', key, 'parentKey')
  if not parent_key then return end
  local queue, parent = parent_of(key, parent_key)
  if queue ~= base then return leave_parent(key) end
  if call('SREM', parent_key .. ':dependencies', key) == 0 then return end
  if call('SCARD', parent_key .. ':dependencies') == 0 and call('ZREM', base .. 'waiting-children', parent) == 1 then
    unlink(parent)
    drop_deduplication(parent)
    remove_jobs({parent})
  end
end

local gone, left = {}, {}
for i, id in ipairs(ids) do
  if #gone >= limit then break end
  local does, unread = goes(id)
  if does then
    gone[#gone + 1] = id
    if is_list then call('LSET', set, -skip - i, '') end -- no id is empty: taken out below, all at once
  end
  left[#left + 1] = unread
end
if #gone > 0 then
  if is_list then
    call('LREM', set, -#gone, '') -- from the right: it stops at the last of them
  else
    call('ZREM', set, unpack(gone))
  end
  for _, id in ipairs(gone) do -- only now: a parent that is released enters a list, and moves its places
    unlink(id)
    drop_deduplication(id)
  end
  remove_jobs(gone)
  if not drains then redis.pcall('XADD', events, '*', 'event', 'cleaned', 'count', #gone) end
  tell(nil, not drains and state_in(container) or nil, nil, #gone)
end
return {{#ids, #gone, left}, told}
