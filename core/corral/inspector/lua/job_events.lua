-- Read the events about one job from the queue's event stream, in one direction.
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms   2 id   3 command: XRANGE or XREVRANGE
--       4 first, 5 last: the range of that command
--       6 looks: the most events that are read
--       7 bytes: no more events are read after this many bytes
-- Returns {entries, rest}; entries: rows {ms, event, prev or '', delay or '', the beginning of the
--         failed reason or ''} in the command's order; rest: where the unread events begin, or ''.

-- @include queue_state.lua

local id, command, first, last = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local looks, most_bytes = tonumber(ARGV[6]), tonumber(ARGV[7])
local CHUNK = 100 -- events per call: each may hold a result of a megabyte, and `most_bytes` is checked between calls

local function row_of(entry)
  local fields = {}
  for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
  local reason = string.sub(fields.failedReason or '', 1, 1000)
  return {string.match(entry[1], '^%d+'), fields.event or '', fields.prev or '', fields.delay or '', reason}
end

local found, looked, bytes = {}, 0, 0
while looked < looks and bytes < most_bytes do
  local entries = read(command, events, first, last, 'COUNT', CHUNK) or {}
  for _, entry in ipairs(entries) do
    local is_about_job = false
    for i = 1, #entry[2], 2 do
      bytes = bytes + #entry[2][i + 1]
      is_about_job = is_about_job or entry[2][i] == 'jobId' and entry[2][i + 1] == id
    end
    if is_about_job then found[#found + 1] = row_of(entry) end
  end
  if #entries < CHUNK then return {found, ''} end
  looked, first = looked + CHUNK, '(' .. entries[CHUNK][1]
end
return {found, first}
