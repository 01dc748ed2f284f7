-- Included by scripts that must know in which container an iteration is. Needs in scope: base
-- (`<prefix>:<queue>:`).

-- The container that holds a job, or nil; and with nil, whether it may still be in the middle of a
-- list: only `looks` ids are read from each end, because a list may be long.
local function container_of(id, looks)
  for _, name in ipairs({'delayed', 'prioritized', 'completed', 'failed', 'waiting-children'}) do
    if redis.call('ZSCORE', base .. name, id) then return name end
  end
  if redis.call('EXISTS', base .. id .. ':lock') == 1 then return 'active' end
  local further = false
  for _, name in ipairs({'active', 'wait', 'paused'}) do
    local list = base .. name
    local length = redis.call('LLEN', list)
    if length > 0 and redis.call('LPOS', list, id, 'MAXLEN', looks) then return name end
    if length > looks and redis.call('LPOS', list, id, 'RANK', -1, 'MAXLEN', looks) then return name end
    further = further or length > 2 * looks
  end
  return nil, further
end

-- Whether a job is in a container, and has not ended.
local function has_yet_to_end(id, looks)
  local name, further = container_of(id, looks)
  return further or (name ~= nil and name ~= 'completed' and name ~= 'failed')
end
