-- Included after opening.lua: what must be settled before a job's keys may go (wire 6.17, 6.20).

local any_delayed = false -- relations.lua sets it where it makes the job that a deduplication id kept back
-- @include relations.lua
-- @include retention.lua

-- The iteration that a schedule waits for: without it the schedule ends (wire 6.17, code -8).
local function is_current_iteration(id)
  if string.sub(id, 1, 7) ~= 'repeat:' then return false end
  local schedule = call('HGET', base .. id, 'rjk')
  local tick = schedule and call('ZSCORE', base .. 'repeat', schedule)
  return tick and id == 'repeat:' .. schedule .. ':' .. tick
end

-- A removed job owns its deduplication id no longer; what was kept back for it goes with it.
local function drop_deduplication(id)
  local deduplication = call('HGET', base .. id, 'deid')
  if deduplication and call('GET', base .. 'de:' .. deduplication) == id then
    call('DEL', base .. 'de:' .. deduplication, base .. 'dn:' .. deduplication)
  end
end
