-- Included right after `meta` was read by redis.pcall. A script cannot go on without it, and has
-- changed nothing so far.
-- @include meta_refused.lua
if meta.err then
  return redis.error_reply('DAMAGED ' .. base .. 'meta is a ' .. redis.call('TYPE', base .. 'meta').ok .. ', not a hash')
end
