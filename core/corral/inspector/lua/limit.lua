-- Change how many jobs of the queue run at once, and how many start in a while (wire 6.18, 6.19).
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms   then pairs: field of `meta` ('concurrency', 'max', 'duration'), value; '' takes it away
-- Returns nothing of interest. What waits is looked at again: a wider limit may let it start.

-- @include opening.lua

for i = 2, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    call('HDEL', base .. 'meta', ARGV[i])
  else
    call('HSET', base .. 'meta', ARGV[i], ARGV[i + 1])
  end
end
meta[2] = call('HGET', base .. 'meta', 'concurrency')
if call('EXISTS', base .. 'wait', base .. 'prioritized') > 0 then signal_work() end
return 0
