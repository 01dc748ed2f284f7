-- Record what running jobs said: progress and log lines (wire 6.13).
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  per note: id, kind ('p' progress, 'l' log line), text, how many lines are kept (0 keeps all)
-- Returns, flat, what could not be written: id, why. A job that is gone is skipped: it must leave no keys behind.

local base, now = KEYS[1], 0 -- nothing is put into the quarantine here
-- @include damage.lua
local max_events = redis.pcall('HGET', base .. 'meta', 'opts.maxLenEvents')
if type(max_events) ~= 'string' or not string.find(max_events, '^%d+$') then max_events = '10000' end
local failed = {}

local function write(id, kind, text, keep)
  local key = base .. id
  if call('EXISTS', key) == 0 then return end
  if kind == 'p' then
    call('HSET', key, 'progress', text)
    call('XADD', base .. 'events', 'MAXLEN', '~', max_events, '*', 'event', 'progress', 'jobId', id, 'data', text)
  else
    call('RPUSH', key .. ':logs', text)
    if keep > 0 then call('LTRIM', key .. ':logs', -keep, -1) end
  end
end

for i = 1, #ARGV, 4 do
  local done, err = pcall(write, ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3]))
  if not done then
    repairs().pass_on_refusal(err)
    failed[#failed + 1], failed[#failed + 2] = ARGV[i], repairs().text_of(err)
  end
end
return failed
