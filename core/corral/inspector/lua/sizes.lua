-- Included after queue_state.lua: count the jobs in each container, even if some keys are damaged.

-- One text for each damaged key of the queue, sorted.
local function damaged_keys()
  local found = {}
  for name, wanted in pairs(TYPES) do
    if name ~= 'priority' then found[#found + 1] = damage(base .. name, wanted) end -- BullMQ no longer uses that key
  end
  found[#found + 1] = damage('corral:' .. base .. 'quarantine', 'hash')
  table.sort(found)
  return found
end

-- The sizes of wait, paused, active, prioritized, delayed, waiting-children, completed, failed;
-- -1 for a damaged key.
local function sizes()
  local found = {}
  for i, name in ipairs({'wait', 'paused', 'active'}) do found[i] = read('LLEN', base .. name) or -1 end
  for i, name in ipairs({'prioritized', 'delayed', 'waiting-children', 'completed', 'failed'}) do
    found[3 + i] = read('ZCARD', base .. name) or -1
  end
  return found
end

-- How many ids are in quarantine; -1 if that key is damaged.
local function quarantine_size() return read('HLEN', 'corral:' .. base .. 'quarantine') or -1 end

-- The fields paused, concurrency, max, duration of `meta`.
local function limits()
  return read('HMGET', base .. 'meta', 'paused', 'concurrency', 'max', 'duration') or {false, false, false, false}
end
