-- Write progress and log lines of running jobs (wire 6.13).
--
-- KEYS  1 `<prefix>:<queue>:`
--       2 the number of this worker's last call, `corral:<prefix>:<queue>:call:<worker>:notes`
-- ARGV  1 seq, counts up with each call of this worker: a call with the same number, or a lower
--         one, writes nothing; 0 for a call that is not repeated
--       then per note: id, kind ('p' progress, 'l' log line), text, how many lines are kept (0
--         keeps all)
-- Returns, flat, the notes that could not be written: id, reason. A job that is gone is skipped: it
--         must leave no keys.

local base, now = KEYS[1], 0 -- nothing is put into the quarantine here
-- @include damage.lua
local REMEMBERED_MS = 600000 -- much longer than a call can be on its way
local seq = tonumber(ARGV[1])
if seq > 0 then
  local last = tonumber(call('GET', KEYS[2]) or 0)
  if not last or last >= seq then return {} end
  call('SET', KEYS[2], seq, 'PX', REMEMBERED_MS) -- the first write: a full store refuses the whole call here
end
local max_events = redis.pcall('HGET', base .. 'meta', 'opts.maxLenEvents')
if type(max_events) ~= 'string' or not string.find(max_events, '^%d+$') then max_events = '10000' end
local events, largest, failed, lines, keeps = base .. 'events', 0, {}, {}, {}

local function attempt_note(id, write)
  local done, err = pcall(write, base .. id)
  if not done then
    repairs().pass_on_refusal(err)
    failed[#failed + 1], failed[#failed + 2] = id, repairs().text_of(err)
  end
end

for i = 2, #ARGV, 4 do
  local id, kind, text = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if kind == 'p' then
    attempt_note(id, function(key)
      if call('EXISTS', key) == 0 then return end
      call('HSET', key, 'progress', text)
      call('XADD', events, 'MAXLEN', '~', max_events, '*', 'event', 'progress', 'jobId', id, 'data', text)
      largest = math.max(largest, #text)
    end)
  else
    if not lines[id] then
      lines[id] = {}
      lines[#lines + 1] = id
    end
    table.insert(lines[id], text)
    keeps[id] = tonumber(ARGV[i + 3])
  end
end

for _, id in ipairs(lines) do
  attempt_note(id, function(key)
    if call('EXISTS', key) == 0 then return end
    call('RPUSH', key .. ':logs', unpack(lines[id]))
    if keeps[id] > 0 then call('LTRIM', key .. ':logs', -keeps[id], -1) end
  end)
end
-- @include bound_events.lua
return failed
