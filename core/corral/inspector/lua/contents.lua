-- Jobs with all that was said about them.
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms   2.. ids
-- Returns {id, flat hash, log lines, results of the jobs below it} for each; an id without a hash is skipped.

-- @include opening.lua

local found = {}
for i = 2, #ARGV do
  local key = base .. ARGV[i]
  local hash = call('HGETALL', key)
  if #hash > 0 then
    found[#found + 1] = {ARGV[i], hash, call('LRANGE', key .. ':logs', 0, -1), call('HVALS', key .. ':processed')}
  end
end
return found
