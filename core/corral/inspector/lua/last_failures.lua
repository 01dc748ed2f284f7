-- Included after queue_state.lua: read the jobs that failed last.

-- Returns rows {id, failed at (ms), the beginning of the reason}, the newest first: at most
-- `wanted` of the last `looks` jobs. An id without a key, or whose key is not a hash, is skipped.
local function last_failures(looks, wanted)
  local found = {}
  local failed = read('ZREVRANGE', base .. 'failed', 0, looks - 1, 'WITHSCORES') or {}
  for i = 1, #failed, 2 do
    if #found >= wanted then break end
    local reason = redis.pcall('HGET', base .. failed[i], 'failedReason')
    if type(reason) == 'string' or reason == false and call('EXISTS', base .. failed[i]) == 1 then
      found[#found + 1] = {failed[i], failed[i + 1], string.sub(reason or '', 1, 1000)}
    end
  end
  return found
end
