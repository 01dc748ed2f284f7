-- What a scrape asks of one queue (wire 2.1, 6.23, 6.25).
--
-- KEYS  1 `<prefix>:<queue>:`
--       2 `corral:<prefix>:alive`, the records of all processes (corral.fleet.processes)
-- ARGV  1 offset_ms   2 how old a heartbeat may be, ms
-- Returns {sizes, finished, paused, oldest_ms, workers, quarantined, retrying}; -1 stands for a
--         figure whose key is damaged
--         sizes      of the containers, in the order of `CONTAINERS`
--         finished   how many jobs were ever completed, and failed: BullMQ's own counts, which
--                    nothing lowers; and how many attempts have failed, see attempts.lua
--         paused     1 or 0
--         oldest_ms  for how long the job that runs next could have been running, 0 where none
--                    waits
--         workers    how many worker processes have a recent heartbeat
--         quarantined  how many ids are in the quarantine
--         retrying   how many of the delayed jobs that are due first have failed attempts

local base = KEYS[1]
local clock = redis.call('TIME')
local real_now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local now = real_now + ARGV[1]
local LOOK = 10

-- @include read.lua
-- @include retrying.lua

-- Since when a job waits. A job that was started before waits since some time after that start,
-- which is not stored.
local function since(id)
  local job = read('HMGET', base .. id, 'timestamp', 'opts', 'ats', 'processedOn')
  if not job then return nil, false end
  if job[3] then return tonumber(job[4] or ''), false end
  local made, readable, opts = tonumber(job[1] or ''), pcall(cjson.decode, job[2] or '{}')
  local delay = readable and type(opts) == 'table' and tonumber(opts.delay) or 0 -- the hash's own is 0 when it is due
  return made and made + delay, true
end

-- The time of the first of the next jobs that was never started; if all were, that of the first of
-- them.
local function waits_since(ids)
  local fallback
  for _, id in ipairs(ids) do
    local at, certain = since(id)
    if at and certain then return at end
    fallback = fallback or at
  end
  return fallback
end

local function next_in_line(name)
  local ids, reversed = read('LRANGE', base .. name, -LOOK, -1), {}
  for i = #(ids or {}), 1, -1 do reversed[#reversed + 1] = ids[i] end
  return reversed, ids
end

local reversed, waiting = next_in_line('wait')
local oldest = now
for _, at in pairs({
  wait = waits_since(reversed),
  paused = waits_since((next_in_line('paused'))),
  prioritized = waits_since(read('ZRANGE', base .. 'prioritized', 0, LOOK - 1) or {}),
}) do oldest = math.min(oldest, at) end
-- A delayed job that is due and was not promoted: without a worker, nothing else shows that it
-- waits.
local overdue = read('ZRANGE', base .. 'delayed', 0, 0, 'WITHSCORES') or {}
if overdue[2] then oldest = math.min(oldest, math.floor(overdue[2] / 4096)) end

local function ever(key)
  local count = read('HGET', key, 'count')
  if count == nil then return -1 end
  return tonumber(count or '') or 0
end

local workers = 0
for _, sign in ipairs(read('HVALS', KEYS[2]) or {}) do
  local seen, processes = string.match(sign, '^(%d+) %d+ (%d+)')
  if seen and processes == '0' and real_now - seen <= tonumber(ARGV[2]) then workers = workers + 1 end
end

local function size(command, key) return read(command, key) or -1 end

return {
  {
    waiting and size('LLEN', base .. 'wait') + math.max(size('LLEN', base .. 'paused'), 0) or -1,
    size('LLEN', base .. 'active'), size('ZCARD', base .. 'prioritized'),
    size('ZCARD', base .. 'delayed'), size('ZCARD', base .. 'waiting-children'), size('ZCARD', base .. 'completed'),
    size('ZCARD', base .. 'failed'),
  },
  {ever(base .. 'metrics:completed'), ever(base .. 'metrics:failed'), ever('corral:' .. base .. 'attempts')},
  read('HEXISTS', base .. 'meta', 'paused') or -1, waiting and math.max(now - oldest, 0) or -1, workers,
  size('HLEN', 'corral:' .. base .. 'quarantine'),
  read('ZCARD', base .. 'delayed') and #find_retrying() or -1,
}
