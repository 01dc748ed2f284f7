-- Take events that hold a text out of the queue's log: results, failed reasons and progress are in there too.
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms   2 after: the last entry of the call before, '-' in the first   3 limit   4.. texts
-- Returns {last, removed}; last '': there are no more.

-- @include opening.lua

local entries = call('XRANGE', events, ARGV[2] == '-' and '-' or '(' .. ARGV[2], '+', 'COUNT', ARGV[3])
local gone = {}
for _, entry in ipairs(entries) do
  for field = 2, #entry[2], 2 do
    for i = 4, #ARGV do
      if entry[2][field - 1] ~= 'jobId' and string.find(entry[2][field], ARGV[i], 1, true) then
        gone[#gone + 1] = entry[1]
        break
      end
    end
  end
end
if #gone > 0 then call('XDEL', events, unpack(gone)) end
return {#entries > 0 and entries[#entries][1] or '', #gone}
