-- Add jobs (wire 6.1, 6.2).
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms, added to the server's time
--       then per group, one or more neighbours that share all but their ids and data:
--         count, name, opts, delay_ms, priority, lifo ('1' or ''), nonce ('' without)
--         then per job of the group: id, data
-- Returns the number of jobs where all of them were made, by this call or by an earlier try of it.
--         Else a list, one entry per job: 1 it was made, or the state of the job that had its id
--         already ('waiting', …); '' where no container holds that job, or one that may hold it
--         cannot be read.
-- Errors  DAMAGED  a key has a wrong type; no job was made
--         any of a store that refuses to write; no job was made. NOPERM and CROSSSLOT may come in
--                 the middle: their word stands first where all was undone
--
-- A repeated call makes no second job. An id without a nonce was made by our producer for one call,
-- so an existing job of that id is this call's own. Where the caller chose the id, a nonce in opts
-- shows whether an earlier try made the job.
--
-- Most calls add plain jobs whose ids are new: lean_add.lua is the fast path for these. The script
-- also works without it: the rest does the same for every call, and takes back what a failed
-- attempt of either has written.

local base, call = KEYS[1], redis.call
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000) + ARGV[1]
local meta = redis.pcall('HMGET', base .. 'meta', 'paused', 'concurrency', 'opts.maxLenEvents')
-- @include check_meta.lua
local max_events = meta[3] and string.find(meta[3], '^%d+$') and meta[3]
if not max_events then
  max_events = '10000'
  call('HSET', base .. 'meta', 'opts.maxLenEvents', max_events)
end

-- A group begins at `at` with its count; its jobs begin at `at + SHARED`.
local SHARED, EACH, size = 7, 2, #ARGV
local ids, keys, total = {}, {}, 0
local seen, twice, plain = {}, false, true -- the ids, as keys; whether one occurs twice; whether all jobs go to the waiting list
local at = 2
while at < size do
  plain = plain and ARGV[at + 3] == '0' and ARGV[at + 4] == '0' and ARGV[at + 5] == ''
  local last = at + SHARED + (ARGV[at] - 1) * EACH
  for place = at + SHARED, last, EACH do
    local id = ARGV[place]
    total = total + 1
    ids[total], keys[total] = id, base .. id
    twice = twice or seen[id]
    seen[id] = true
  end
  at = last + EACH
end
local any_exists = redis.pcall('EXISTS', unpack(keys)) ~= 0 -- also true for a refusal: add_all gets that again
local first, last = 0, 0 -- how many ids this call has put at the left and at the right end of the waiting list
local done, replies = true, nil -- not `done`: an attempt failed, with the error `replies`, and left `seen`, `first`, `last`

-- @include lean_add.lua
-- @include events.lua
local queue, is_paused = base, meta[1]
-- @include wait_list.lua
local delayed, ready = false, false

-- First in, first out: plain jobs enter the left end in one command. A lifo job enters the right
-- end, a delayed or a prioritized one another container, so their order among the plain ones does
-- not matter.
local function add_all()
  local to_left, made, attempts, at, number = {}, {}, 0, 2, 0
  seen, first, last, delayed, ready = {}, 0, 0, false, false
  local all = true
  while at < size do
    local name, opts, lifo, nonce = ARGV[at + 1], ARGV[at + 2], ARGV[at + 5], ARGV[at + 6]
    local delay, priority = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
    local last_place = at + SHARED + (ARGV[at] - 1) * EACH
    for place = at + SHARED, last_place, EACH do
      number = number + 1
      local id, key = ids[number], keys[number]
      local exists = seen[id] or (any_exists and call('EXISTS', key) == 1)
      local ours = exists and not seen[id]
        and (nonce == '' or string.find(call('HGET', key, 'opts') or '', nonce, 1, true) ~= nil)
      if not ours then attempts = attempts + 1 end
      local reply = 1
      if exists and not ours then
        emit_capped('duplicated', 'jobId', id)
        -- @include existing_state.lua
        reply = seen[id] or existing_state(id)
      elseif not exists then
        seen[id] = delay > 0 and 'delayed' or priority > 0 and 'prioritized' or 'waiting'
        call('HSET', key, 'name', name, 'data', ARGV[place + 1], 'opts', opts, 'timestamp', now, 'delay', ARGV[at + 3],
          'priority', ARGV[at + 4])
        call('XADD', events, '*', 'event', 'added', 'jobId', id, 'name', name)
        if delay > 0 then
          add_delayed(id, now + delay)
          delayed = true
        else
          ready = true
          if priority > 0 then
            add_prioritized(id, priority)
          elseif lifo == '1' then
            call('RPUSH', wait_list, id)
            last = last + 1
          else
            to_left[#to_left + 1] = id
          end
          emit_capped('waiting', 'jobId', id)
        end
      end
      made[number] = reply
      all = all and reply == 1
    end
    at = last_place + EACH
  end
  if #to_left > 0 then
    call('LPUSH', wait_list, unpack(to_left))
    first = #to_left
  end
  if delayed then signal_delayed() end
  if ready and not meta[1] then
    -- A length that cannot be read holds nobody up: a marker too many costs an empty fetch.
    local limit = tonumber(meta[2])
    local running = limit and redis.pcall('LLEN', base .. 'active')
    if type(running) ~= 'number' or running < limit then call('ZADD', base .. 'marker', 0, '0') end
  end
  -- Last: nobody else's numbers are taken back. A repeated call adds 0, since it must write
  -- something: Valkey's WAIT waits only for what its own connection has written.
  call('INCRBY', base .. 'id', attempts)
  return all and total or made
end

if done then done, replies = pcall(add_all) end
if not done then
  -- No job is left without a container: all are made, or none. Their events are removed, too.
  local function take_back(...)
    local reply = redis.pcall(...)
    if type(reply) == 'table' and repairs().late_refusal(reply) then error(reply, 0) end
  end

  local function undo()
    for id in pairs(seen) do
      take_back('UNLINK', base .. id)
      if call('EXISTS', base .. 'delayed') == 1 then take_back('ZREM', base .. 'delayed', id) end
      if call('EXISTS', base .. 'prioritized') == 1 then take_back('ZREM', base .. 'prioritized', id) end
    end
    if first > 0 then take_back('LTRIM', wait_list, first, -1) end
    if last > 0 then take_back('LTRIM', wait_list, 0, -last - 1) end
    local asked = {}
    for _, id in ipairs(ids) do asked[id] = true end
    local entries = redis.pcall('XRANGE', events, clock[1] * 1000 + math.floor(clock[2] / 1000), '+')
    for _, entry in ipairs(entries) do
      local fields = {}
      for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
      local id = fields.jobId or ''
      if seen[id] or (asked[id] and fields.event == 'duplicated') then redis.pcall('XDEL', events, entry[1]) end
    end
    seen, first, last = {}, 0, 0
  end

  local known, made, reply = pcall(repairs().try_again, replies, undo, add_all)
  if not known then
    -- Refused in the middle. Where all was undone, the first word promises that no job was made.
    local word = repairs().late_refusal(made)
    if word and next(seen) == nil then
      return redis.error_reply(word .. ' ' .. string.gsub(repairs().text_of(made), '^%-?ERR ', ''))
    end
    error(made, 0)
  end
  if not made then return redis.error_reply(damage.broken or 'DAMAGED ' .. reply) end
  replies = reply
end
return replies
