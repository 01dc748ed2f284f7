-- Included by advance.lua, after events.lua: move delayed jobs that are due to where they wait
-- (wire 6.5).

local function promote_due()
  local delayed = base .. 'delayed'
  local ids = call('ZRANGEBYSCORE', delayed, 0, (now + 1) * 4096 - 1, 'LIMIT', 0, 1000)
  if #ids == 0 then return end
  local priorities, damaged = {}, {}
  for i, id in ipairs(ids) do
    local found = redis.pcall('HGET', base .. id, 'priority')
    if type(found) == 'table' then
      damaged[i] = repairs().text_of(found)
    elseif found or call('EXISTS', base .. id) == 1 then
      priorities[i] = tonumber(found) or 0
    end -- else its hash is gone, and a write would make a job without data (trap T14)
  end

  local plain, placed = {}, 0
  local function place()
    for i, id in ipairs(ids) do
      if damaged[i] then
        repairs().set_aside(id, 'delayed', base .. id .. ' is damaged: ' .. damaged[i])
      elseif priorities[i] then
        call('XADD', events, '*', 'event', 'waiting', 'jobId', id, 'prev', 'delayed')
        call('HSET', base .. id, 'delay', '0')
        if priorities[i] > 0 then
          add_prioritized(id, priorities[i])
        else
          plain[#plain + 1] = id
        end
      end
      placed = i
    end
    if #plain > 0 then call('LPUSH', wait_list, unpack(plain)) end
  end

  call('ZREM', delayed, unpack(ids)) -- the first write, and a full store allows this one
  local done, err = pcall(place)
  if not done then
    for _, id in ipairs(plain) do call('ZADD', delayed, now * 4096, id) end
    for i = placed + 1, #ids do
      if priorities[i] or damaged[i] then call('ZADD', delayed, now * 4096, ids[i]) end
    end
    error(err, 0)
  end
end
