-- Included where the iterations of job schedulers are named (wire 6.21). Needs in scope: base (`<prefix>:<queue>:`).

local function iteration_id(schedule, ms) return string.format('repeat:%s:%.0f', schedule, ms) end

-- Whether an iteration has yet to end: nobody makes the next one for a scheduler whose current one does not live.
local function lives(id)
  return redis.call('EXISTS', base .. id) == 1
    and not redis.call('ZSCORE', base .. 'completed', id) and not redis.call('ZSCORE', base .. 'failed', id)
end
