-- Included right after `meta` was read by redis.pcall: without it nothing can be done, and nothing was changed yet.
-- @include meta_refused.lua
if meta.err then
  return redis.error_reply('DAMAGED ' .. base .. 'meta is a ' .. redis.call('TYPE', base .. 'meta').ok .. ', not a hash')
end
