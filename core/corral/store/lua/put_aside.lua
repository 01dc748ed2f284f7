-- Included where a paused queue's jobs must all be in `paused` and none in `wait` (wire 6.14,
-- trap T1): see wait_list.lua.
-- Needs in scope: base (`<prefix>:<queue>:`).

-- Move the jobs in `wait` behind those in `paused`; both keep their order.
local function put_aside()
  local list, aside = base .. 'wait', base .. 'paused'
  if redis.call('EXISTS', list) == 0 then return end
  if redis.call('EXISTS', aside) == 0 then return redis.call('RENAME', list, aside) end
  repeat
    local ids = redis.call('LRANGE', list, -5000, -1)
    local first_out = {}
    for i = #ids, 1, -1 do first_out[#first_out + 1] = ids[i] end
    if #ids > 0 then
      redis.call('LPUSH', aside, unpack(first_out))
      redis.call('LTRIM', list, 0, -#ids - 1)
    end
  until #ids == 0
end
