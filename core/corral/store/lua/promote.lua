-- Included by advance.lua, after events.lua: jobs whose time has come (wire 6.5).

local function promote_due()
  local ids = call('ZRANGEBYSCORE', base .. 'delayed', 0, (now + 1) * 4096 - 1, 'LIMIT', 0, 1000)
  if #ids == 0 then return end
  call('ZREM', base .. 'delayed', unpack(ids))
  local plain = {}
  for _, id in ipairs(ids) do
    local priority = tonumber(call('HGET', base .. id, 'priority')) or 0
    if priority > 0 then
      add_prioritized(id, priority)
    else
      plain[#plain + 1] = id
    end
    call('XADD', events, '*', 'event', 'waiting', 'jobId', id, 'prev', 'delayed')
    call('HSET', base .. id, 'delay', '0')
  end
  if #plain > 0 then call('LPUSH', base .. 'wait', unpack(plain)) end
end
