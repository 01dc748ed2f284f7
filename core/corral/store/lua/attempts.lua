-- Included by endings.lua where attempts have failed, inside of a function: count them by the
-- minute, and by the reason and the hour. Nothing of it runs where all jobs have completed.
-- Needs in scope: base, now, call, roll_minutes; failed, the shapes of the failed attempts' endings
--         and their ids, flat: shape, id, …
--
-- `corral:<prefix>:<queue>:attempts` (and `:data`) counts them as BullMQ's metrics count finished
-- jobs (wire 6.23).
-- `corral:<prefix>:<queue>:reasons:<hour>` is a hash: reason -> 'count series since_ms last_ms
-- completed id', and '' -> how many attempts failed for reasons that were dropped.
--   count      attempts that failed for this reason in this hour of the clock
--   series     attempts in a row that failed for it, since since_ms
--   completed  how many jobs of the queue had ever been completed when the last one failed
--   id         the job of the last one
-- A series goes on as long as jobs fail for the reason again, or nothing completes, or less than
-- QUIET_MS pass: jobs that fail for the first time, after others have completed, begin a new one.

local MOST, HOUR_MS, QUIET_MS = 50, 3600000, 60000
local own, points = 'corral:' .. base, tonumber(ARGV[6])

if points > 0 then
  local key, n = own .. 'attempts', #failed / 2
  roll_minutes(key, call('HINCRBY', key, 'count', n) - n, points)
  call('PEXPIRE', key, points * 60000)
  call('PEXPIRE', key .. ':data', points * 60000)
end

local groups, order = {}, {}
for i = 1, #failed, 2 do
  local shape = failed[i]
  local reason = ARGV[shape + 11]
  local group = groups[reason]
  if not group then
    group = {count = 0, again = false}
    groups[reason], order[#order + 1] = group, reason
  end
  group.count, group.id = group.count + 1, failed[i + 1]
  group.again = group.again or tonumber(ARGV[shape + 3]) > 1
end

local function parsed(text)
  local count, series, since, last, completed = string.match(text or '', '^(%d+) (%d+) (%d+) (%d+) (%d+) ')
  if not count then return nil end
  return tonumber(count), tonumber(series), since, tonumber(last), completed
end

local hour = math.floor(now / HOUR_MS)
local key, before = own .. 'reasons:' .. string.format('%.0f', hour), own .. 'reasons:' .. string.format('%.0f', hour - 1)
local done = redis.pcall('HGET', base .. 'metrics:completed', 'count')
done = type(done) == 'string' and string.match(done, '^%d+$') or '0'

for _, reason in ipairs(order) do
  local group = groups[reason]
  local count, series, since, last, completed = parsed(call('HGET', key, reason))
  if not count then
    local held = call('HGETALL', key)
    if #held / 2 >= MOST then -- drop the reason that is the rarest, of several the one that came last the longest ago
      local rarest, least, oldest
      for i = 1, #held, 2 do
        local n, _, _, at = parsed(held[i + 1])
        n, at = n or 0, at or 0
        if held[i] ~= '' and (not least or n < least or n == least and at < oldest) then
          rarest, least, oldest = held[i], n, at
        end
      end
      call('HDEL', key, rarest)
      call('HINCRBY', key, '', least)
    end
    count, series, since, last, completed = parsed(call('HGET', before, reason))
    count = 0
  end
  if not since or (not group.again and completed ~= done and now - last > QUIET_MS) then
    series, since = 0, string.format('%.0f', now)
  end
  call('HSET', key, reason, string.format('%.0f %.0f %s %.0f %s %s', count + group.count, series + group.count, since,
    now, done, group.id))
end
call('PEXPIRE', key, 2 * HOUR_MS)
