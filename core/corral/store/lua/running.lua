-- Included by advance.lua where jobs leave `active`: how many jobs run, looked at once a second.
if second ~= math.floor(now / 1000) then
  running = redis.pcall('LLEN', base .. 'active')
  if type(running) == 'table' then running = 0 end -- what is damaged is found when a job leaves it
  second = math.floor(now / 1000)
end
