-- Included after opening.lua: how many jobs are where, though keys are damaged.

-- What is damaged of the queue's own keys, by name.
local function wrongs()
  local found = {}
  for name, wanted in pairs(TYPES) do
    if name ~= 'priority' then found[#found + 1] = damage(base .. name, wanted) end -- BullMQ's dead key
  end
  found[#found + 1] = damage('corral:' .. base .. 'quarantine', 'hash')
  table.sort(found)
  return found
end

-- Of wait, paused, active, prioritized, delayed, waiting-children, completed, failed; -1 of one that is damaged.
local function sizes()
  local found = {}
  for i, name in ipairs({'wait', 'paused', 'active'}) do found[i] = read('LLEN', base .. name) or -1 end
  for i, name in ipairs({'prioritized', 'delayed', 'waiting-children', 'completed', 'failed'}) do
    found[3 + i] = read('ZCARD', base .. name) or -1
  end
  return found
end

-- How many are in quarantine; -1 where that is damaged.
local function quarantined() return read('HLEN', 'corral:' .. base .. 'quarantine') or -1 end

-- paused, concurrency, max, duration
local function limits()
  return read('HMGET', base .. 'meta', 'paused', 'concurrency', 'max', 'duration') or {false, false, false, false}
end
