-- Who runs what: the active jobs that started first.
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms   2 looks: how many are looked at
-- Returns {id, name, processedOn, pb, lock token, lock_ms} of each, texts '' where there is none; lock_ms negative
--         without a lock.

-- @include opening.lua

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
