-- Read the active jobs that started first, and who runs them.
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms   2 looks: how many jobs are read
-- Returns one row per job: {id, name, processedOn, pb, lock token, lock_ms}. Missing texts are ''.
--         lock_ms: time until the lock expires; negative without a lock.

-- @include queue_state.lua

local ids = read('LRANGE', base .. 'active', -ARGV[2], -1) or {}
local jobs = {}
for i = #ids, 1, -1 do
  local key = base .. ids[i]
  local held = redis.pcall('HMGET', key, 'name', 'processedOn', 'pb')
  if not held.err then
    local token = redis.pcall('GET', key .. ':lock')
    if type(token) == 'table' then token = '' end
    jobs[#jobs + 1] = {
      ids[i], held[1] or '', held[2] or '', held[3] or '', token or '', call('PTTL', key .. ':lock'),
    }
  end
end
return jobs
