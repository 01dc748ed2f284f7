-- Read jobs with their log lines and their children's results.
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms   2.. ids
-- Returns {jobs, left}; jobs: rows {id, flat hash, log lines, results of the children}; an id
--         without a hash is skipped.
--         left: one text for each job that cannot be read because a key is damaged.

-- @include queue_state.lua

local found, left = {}, {}
for i = 2, #ARGV do
  local key = base .. ARGV[i]
  local wrong = damage(key, 'hash') or damage(key .. ':logs', 'list') or damage(key .. ':processed', 'hash')
  local hash = wrong and {} or call('HGETALL', key)
  if #hash > 0 then
    found[#found + 1] = {ARGV[i], hash, call('LRANGE', key .. ':logs', 0, -1), call('HVALS', key .. ':processed')}
  end
  left[#left + 1] = wrong
end
return {found, left}
