-- What the queue's log says of one job.
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms   2 id   3 from_ms, 4 to_ms: the job's life, '-' and '+' where that is open
--       5 looks: how many events are looked at from its beginning, and how many from its end
-- Returns {missing, entries}: missing: before which of the entries, from 1, events were not looked at; 0: all were
--         entries: {ms, event, prev or '', delay or '', the beginning of the failed reason or ''} each, in order

-- @include opening.lua

local id, from, to, looks = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local entries = {}

local function keep(found, first, last, step)
  for i = first, last, step do
    local fields = {}
    for j = 1, #found[i][2], 2 do fields[found[i][2][j]] = found[i][2][j + 1] end
    if fields.jobId == id then
      local ms = string.match(found[i][1], '^%d+')
      local reason = string.sub(fields.failedReason or '', 1, 1000)
      entries[#entries + 1] = {ms, fields.event or '', fields.prev or '', fields.delay or '', reason}
    end
  end
end

local head = call('XRANGE', events, from, to, 'COUNT', looks)
keep(head, 1, #head, 1)
if #head < looks then return {0, entries} end
local after = #entries
local tail = call('XREVRANGE', events, to, '(' .. head[#head][1], 'COUNT', looks)
keep(tail, #tail, 1, -1)
return {#tail == looks and after + 1 or 0, entries}
