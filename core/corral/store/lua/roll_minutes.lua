-- Included where ended jobs are counted by the minute (wire 6.23).

-- Called where a new minute has begun since the last entry of `<key>:data`. That list gets one
-- entry per minute, the newest first, `points` at most. `before` is the `count` of the hash `key`
-- before this call.
local function roll_minutes(key, before, points)
  local previous = call('HMGET', key, 'prevTS', 'prevCount')
  if not previous[1] then
    call('HSET', key, 'prevTS', now, 'prevCount', 0)
    return
  end
  local minutes = math.min(math.floor(now / 60000) - math.floor(previous[1] / 60000), points)
  if minutes < 1 then return end
  call('LPUSH', key .. ':data', before - (tonumber(previous[2]) or 0))
  for from = 1, minutes - 1, 5000 do
    local zeros = {}
    for i = 1, math.min(5000, minutes - from) do zeros[i] = 0 end
    call('LPUSH', key .. ':data', unpack(zeros))
  end
  call('LTRIM', key .. ':data', 0, points - 1)
  call('HSET', key, 'prevCount', before, 'prevTS', now)
end
