-- Included right after `meta` was read by redis.pcall: without it nothing can be done, and nothing was changed yet.
if meta.err and not string.find(meta.err, '^%-?WRONGTYPE') then
  return redis.error_reply('NOPERM ' .. string.gsub(meta.err, '^%-?ERR ', ''))
end
if meta.err then
  return redis.error_reply('DAMAGED ' .. base .. 'meta is a ' .. redis.call('TYPE', base .. 'meta').ok .. ', not a hash')
end
