-- Take out of finished jobs what somebody has put in: payload, result, progress, reasons, traces and log lines.
--
-- KEYS  1 `<prefix>:<queue>:`   2, and the end of ARGV: see told.lua
-- ARGV  1 offset_ms   2 count of texts   then the texts: any of them in a job makes it match; none: every job matches
--       then ids
-- Returns {{ids that matched, left}, told}. A job that is not finished is left alone: it needs its payload. left: what is
--         damaged of jobs that nobody can look through, or empty, for that.

-- @include opening.lua
-- @include told.lua

local wrong = broken('completed', 'failed')
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
  wrong = finished and (damage(key, 'hash') or damage(key .. ':logs', 'list') or damage(key .. ':processed', 'hash')) or nil
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
if #scrubbed > 0 then tell(nil, nil, nil, #scrubbed) end
return {{scrubbed, left}, told}
