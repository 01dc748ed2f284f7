-- Included after opening.lua: how the jobs failed that failed last.

-- {id, failed at (ms), the beginning of the reason} each, the newest first: at most `wanted` of the last `looks`. An id
-- without a hash, or whose key is none, is skipped.
local function last_failures(looks, wanted)
  local found = {}
  local failed = call('ZREVRANGE', base .. 'failed', 0, looks - 1, 'WITHSCORES')
  for i = 1, #failed, 2 do
    if #found >= wanted then break end
    local held = redis.pcall('HMGET', base .. failed[i], 'failedReason', 'name', 'data')
    if not held.err and (held[1] or held[2] or held[3]) then
      found[#found + 1] = {failed[i], failed[i + 1], string.sub(held[1] or '', 1, 1000)}
    end
  end
  return found
end
