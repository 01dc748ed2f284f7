-- Included where values were written to the event stream: bound its bytes where one of them is
-- large. Values are not cut, because listeners take a job's result from its event. The stream is
-- trimmed to n = 16 MiB / size entries, at least 1,000, so there are never more than n values of
-- any size from 4 KiB on.
-- Needs in scope: events, max_events, largest (bytes, 0 for none). Nothing is trimmed where another
-- limit is smaller.
if largest > 4096 then
  local most = math.max(math.floor(16777216 / largest), 1000)
  if most < (tonumber(max_events) or 0) then redis.pcall('XTRIM', events, 'MAXLEN', '~', most) end
end
