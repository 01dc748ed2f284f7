-- Included by advance.lua where jobs leave `active`. LREM walks to a job from one end, 5 to 9 us
-- per 1,000 ids: most of a millisecond where it is at the other end of 100,000. The list is in the
-- order of the starts, so a job that started after the one in the middle is nearer to the head.
-- When the middle one started is looked up once a second.
if second ~= math.floor(now / 1000) then
  local length = redis.pcall('LLEN', base .. 'active')
  second, middle = math.floor(now / 1000), 0
  if type(length) == 'number' and length > 1000 then
    local id = redis.pcall('LINDEX', base .. 'active', math.floor(length / 2))
    middle = type(id) == 'string' and tonumber(redis.pcall('HGET', base .. id, 'processedOn')) or 0
  end
end
