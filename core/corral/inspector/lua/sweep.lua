-- Remove the jobs of a container that are old enough (wire 6.17: clean, and drain), one batch. The
-- next iterations of schedules are kept, and so are active jobs that a worker holds.
--
-- KEYS  1 `<prefix>:<queue>:`   2 the audit's stream: see audit_entry.lua
-- ARGV  1 offset_ms   2 container   3 age_ms: the least age; '' drains: any age, and no event
--       4 skip: how many jobs earlier calls have looked at and kept
--       5 looks: how many jobs are looked at
--       6 limit: the most jobs to remove   then the arguments of audit_entry.lua
-- Returns {{looked, removed, left}, audited}; looked: 0 if there are no more; left: one text for
--         each job that is kept because a key is damaged.

-- @include queue_state.lua
-- @include audit_entry.lua
-- @include removal.lua

local container, skip, looks, limit = ARGV[2], tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local drains = ARGV[3] == ''
local oldest = drains and math.huge or now - ARGV[3]
local set = base .. container
local is_list = container == 'wait' or container == 'active' or container == 'paused'
local is_finished = container == 'completed' or container == 'failed'

local wrong = first_damaged(container)
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

-- Whether a job is removed. The second value is the damage for which it is kept.
local function can_be_removed(id)
  local key = base .. id
  if container == 'active' and call('EXISTS', key .. ':lock') == 1 then return false end
  local held = redis.pcall('HMGET', key, 'finishedOn', 'processedOn', 'timestamp', 'parentKey')
  if held.err then return false, damage(key, 'hash') end
  if not (drains or is_finished) and (tonumber(held[1] or held[2] or held[3]) or 0) > oldest then return false end
  local is_current, unread = is_current_iteration(id)
  unread = unread or not is_current and held[4] and damaged_family(key) or nil
  return not (is_current or unread), unread
end

-- Take a job out of its parent. A parent that loses its last child is removed if it is in the same
-- queue; otherwise it runs next, and unlike BullMQ we also write the event in its queue.
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
  local is_removed, unread = can_be_removed(id)
  if is_removed then
    gone[#gone + 1] = id
    -- In a list it is replaced by an empty text, which is never an id; those are removed all at
    -- once below.
    if is_list then call('LSET', set, -skip - i, '') end
  end
  left[#left + 1] = unread
end
if #gone > 0 then
  if is_list then
    call('LREM', set, -#gone, '') -- from the right, so that LREM stops after the last of them
  else
    call('ZREM', set, unpack(gone))
  end
  for _, id in ipairs(gone) do -- only now: a released parent is added to a list, which shifts its indexes
    unlink(id)
    drop_deduplication(id)
  end
  remove_jobs(gone)
  if not drains then redis.pcall('XADD', events, '*', 'event', 'cleaned', 'count', #gone) end
  write_entry(nil, not drains and state_in(container) or nil, nil, #gone)
end
return {{#ids, #gone, left}, audited}
