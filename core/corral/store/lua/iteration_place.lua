-- Included where it matters what became of an iteration. Needs in scope: base (`<prefix>:<queue>:`).

-- The container that holds a job, or nil. In a list, `looks` ids are looked at from each end, 0: all of them; a job that
-- may be further in counts as waiting there, so that a long list is not read through for each of many schedules.
local function container_of(id, looks)
  for _, name in ipairs({'delayed', 'prioritized', 'completed', 'failed', 'waiting-children'}) do
    if redis.call('ZSCORE', base .. name, id) then return name end
  end
  if redis.call('EXISTS', base .. id .. ':lock') == 1 then return 'active' end
  for _, name in ipairs({'active', 'wait', 'paused'}) do
    local list = base .. name
    if redis.call('LPOS', list, id, 'MAXLEN', looks) then return name end
    if looks > 0 and redis.call('LLEN', list) > looks then
      if redis.call('LPOS', list, id, 'RANK', -1, 'MAXLEN', looks) then return name end
      if redis.call('LLEN', list) > 2 * looks then return 'wait' end
    end
  end
  return nil
end
