-- What the queue's log says of one job, from one end of its life on.
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms   2 id   3 command: XRANGE, or XREVRANGE   4 first, 5 last: what that begins and ends with
--       6 looks: how many events are looked at   7 bytes: no more are looked at after so many
-- Returns {entries, rest}: {ms, event, prev or '', delay or '', the beginning of the failed reason or ''} each, as the
--         command orders them; where events begin that were not looked at, '' where there are none.

-- @include opening.lua

local id, command, first, last, looks, most_bytes = ARGV[2], ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local CHUNK = 100 -- a result may have a megabyte: it is gone again before many of them are read

local function told(entry)
  local fields = {}
  for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
  local reason = string.sub(fields.failedReason or '', 1, 1000)
  return {string.match(entry[1], '^%d+'), fields.event or '', fields.prev or '', fields.delay or '', reason}
end

local found, looked, bytes = {}, 0, 0
while looked < looks and bytes < most_bytes do
  local entries = read(command, events, first, last, 'COUNT', CHUNK) or {}
  for _, entry in ipairs(entries) do
    local is_its = false
    for i = 1, #entry[2], 2 do
      bytes = bytes + #entry[2][i + 1]
      is_its = is_its or entry[2][i] == 'jobId' and entry[2][i + 1] == id
    end
    if is_its then found[#found + 1] = told(entry) end
  end
  if #entries < CHUNK then return {found, ''} end
  looked, first = looked + CHUNK, '(' .. entries[CHUNK][1]
end
return {found, first}
