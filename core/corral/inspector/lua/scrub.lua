-- Empty finished jobs: remove payload, result, progress, failed reason, stack traces and log lines.
--
-- KEYS  1 `<prefix>:<queue>:`   2 the audit's stream: see audit_entry.lua
-- ARGV  1 offset_ms   2 count of texts
--       then the texts: a job matches if it contains any of them; none: every job matches
--       then ids   then the arguments of audit_entry.lua
-- Returns {{ids of the emptied jobs, left}, audited}. A job that is not finished is not changed: it
--         needs its payload.
--         left: one text for each job that could not be searched or emptied because a key is
--           damaged.

-- @include queue_state.lua
-- @include audit_entry.lua

local wrong = first_damaged('completed', 'failed')
if wrong then return refusal(wrong) end

local texts, first = {}, 3 + ARGV[2]
for i = 3, first - 1 do texts[#texts + 1] = ARGV[i] end

local function holds(values)
  for _, value in ipairs(values) do
    for _, text in ipairs(texts) do
      if value and string.find(value, text, 1, true) then return true end
    end
  end
  return #texts == 0
end

local FIELDS = {'data', 'returnvalue', 'stacktrace', 'failedReason', 'progress'}
local scrubbed, left = {}, {}
for i = first, #ARGV do
  local id = ARGV[i]
  local key = base .. id
  local finished = call('ZSCORE', base .. 'completed', id) or call('ZSCORE', base .. 'failed', id)
  wrong = finished and (damage(key, 'hash') or damage(key .. ':logs', 'list') or damage(key .. ':processed', 'hash'))
  wrong = wrong or nil
  left[#left + 1] = wrong
  if finished and not wrong and call('EXISTS', key) == 1 then
    local held = call('HMGET', key, unpack(FIELDS))
    if holds(held) or holds(call('LRANGE', key .. ':logs', 0, -1)) or holds(call('HVALS', key .. ':processed')) then
      call('HSET', key, 'data', '{}')
      if held[2] then call('HSET', key, 'returnvalue', 'null') end
      if held[3] then call('HSET', key, 'stacktrace', '[]') end
      if held[4] then call('HSET', key, 'failedReason', 'scrubbed') end
      call('HDEL', key, 'progress')
      call('DEL', key .. ':logs')
      for _, child in ipairs(call('HKEYS', key .. ':processed')) do
        call('HSET', key .. ':processed', child, 'null')
      end
      scrubbed[#scrubbed + 1] = id
    end
  end
end
if #scrubbed > 0 then write_entry(nil, nil, nil, #scrubbed) end
return {{scrubbed, left}, audited}
