-- Add to the figures of some minutes: pure sums and a maximum, so that any number of workers may.
--
-- KEYS  1 `corral:<prefix>:<queue>:minutes`, a hash: minute % kept -> 'minute jobs first_starts
--         wait_ms run_ms longest_ms'
-- ARGV  1 kept, how many minutes the hash holds   2 how long it lives from now, ms
--       then per minute: the minute (Unix ms / 60,000), jobs, first_starts, wait_ms, run_ms,
--         longest_ms
-- Returns 1. A minute replaces the one of the day before; sums that arrive a day late are dropped.

local FIELDS = 6
for at = 3, #ARGV, FIELDS do
  local slot = ARGV[at] % ARGV[1]
  local sums = {}
  for number in string.gmatch(redis.call('HGET', KEYS[1], slot) or '', '%d+') do sums[#sums + 1] = tonumber(number) end
  local minute = tonumber(ARGV[at])
  if (sums[1] or 0) <= minute then
    if sums[1] ~= minute then sums = {minute, 0, 0, 0, 0, 0} end
    for i = 2, FIELDS - 1 do sums[i] = sums[i] + ARGV[at + i - 1] end
    sums[FIELDS] = math.max(sums[FIELDS], ARGV[at + FIELDS - 1])
    redis.call('HSET', KEYS[1], slot, string.format('%.0f %.0f %.0f %.0f %.0f %.0f', unpack(sums)))
  end
end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
