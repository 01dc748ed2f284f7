-- Look at the next batch of jobs in one container, the newest first, and return the candidates of a
-- search.
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms   2 container
--       3 place, 4 id: of the job that was looked at last: its score (in a list its index), its id;
--         '' to begin
--       5 looks: how many jobs are looked at   6 each: the cost of looking at a job, in bytes
--       7 bytes: no other job is looked at after this cost; texts that are slow to search cost more
--         than their length
--       8 hits: no other job is looked at after this many candidates
--       9 count of texts, and the texts: a job matches if its payload or failed reason contains any
--         of them; none: every job
--       then count of names, and the names of a member of the payload, as JSON spells them; none:
--         every job
--       then count of values, and the beginnings of values, as JSON spells them: any of them must
--         follow any of the names
-- Returns {looked, read, ended, place, id, jobs}: how many jobs were looked at, and their cost in
--         bytes; 1 if there are no more, else 0; where the next call continues; jobs: rows {id,
--         flat hash, due score or ''} of the candidates.
--         A member may belong to another object of the payload with the same name: the caller
--         checks the parsed payload.

-- @include queue_state.lua

local container, place, id = ARGV[2], ARGV[3], ARGV[4]
local looks, each_bytes, bytes, hits = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local set = base .. container
local is_list = container == 'wait' or container == 'active' or container == 'paused'
local MOST_MEMBERS = 500 -- members of one name in one payload that are checked; a job with more of them is a candidate
local MEMBER_BYTES = 200 -- the cost of checking one of them, in bytes
-- string.find stops at each byte that equals the text's first byte. The extra cost of a stop, in
-- bytes:
local STOPS = 2.5
-- How often it stops is estimated from a sample of the payload: of every large payload, and of
-- every eighth job.
local SAMPLE_BYTES, LARGE_BYTES = 32, 4096
-- Fewer stops in a sample are ignored: they cost little, and otherwise the progress of a search
-- would reveal characters of masked fields.
local MANY_STOPS = 8

local argument = 9
local function read_strings()
  local found, count = {}, tonumber(ARGV[argument])
  for i = argument + 1, argument + count do found[#found + 1] = ARGV[i] end
  argument = argument + count + 1
  return found
end
local texts = read_strings()
local names = read_strings()
local values = read_strings()

-- The index of the next job, even if jobs were added or removed since the last call.
local function next_place()
  if place == '' then return 0 end
  if is_list then
    local at = call('LINDEX', set, place) == id and place or call('LPOS', set, id)
    return at and at + 1 or tonumber(place)
  end
  if call('ZSCORE', set, id) == place then return call('ZREVRANK', set, id) + 1 end
  local at = call('ZCOUNT', set, '(' .. place, '+inf')
  for _, other in ipairs(call('ZREVRANGEBYSCORE', set, place, place, 'LIMIT', 0, 5000)) do
    if other < id then break end
    at = at + 1
  end
  return at
end

local first = string.sub(texts[1] or values[#values] or '', 1, 1)
local extra_cost, members = 0, 0 -- extra cost per byte

-- Estimate the extra cost per byte of searching this text and similar ones.
local function estimate(data)
  local start = math.floor(#data / 2)
  local sample, stops, at = string.sub(data, start, start + SAMPLE_BYTES - 1), 0, 0
  while first ~= '' do
    at = string.find(sample, first, at + 1, true)
    if not at then break end
    stops = stops + 1
  end
  extra_cost = stops > MANY_STOPS and STOPS * stops / SAMPLE_BYTES or 0
end

local function holds(data, strings)
  for _, each in ipairs(strings) do
    if string.find(data, each, 1, true) then return true end
  end
  return #strings == 0
end

local function has_member(data)
  if not holds(data, values) then return false end
  for _, name in ipairs(names) do
    local stop = 0
    for _ = 1, MOST_MEMBERS do
      local _, found = string.find(data, name, stop + 1, true)
      stop = found
      if not stop then break end
      members = members + 1
      local _, colon = string.find(data, '^%s*:%s*', stop + 1)
      for _, value in ipairs(colon and values or {}) do
        if string.sub(data, colon + 1, colon + #value) == value then return true end
      end
    end
    if stop then return true end
  end
  return #names == 0
end

local from = next_place()
local ids = read(is_list and 'LRANGE' or 'ZREVRANGE', set, from, from + looks - 1) or {}
local jobs, looked, read = {}, 0, 0
for _, each in ipairs(ids) do
  looked, read, id = looked + 1, read + each_bytes, each
  local held = redis.pcall('HMGET', base .. each, 'data', 'failedReason')
  if not held.err then
    local data, reason = held[1] or '', held[2] or ''
    if looked % 8 == 1 or #data > LARGE_BYTES then estimate(data) end
    read = read + math.floor((#data + #reason) * (1 + extra_cost))
    if (holds(data, texts) or holds(reason, texts)) and has_member(data) then
      local hash = call('HGETALL', base .. each)
      if #hash > 0 then
        jobs[#jobs + 1] = {each, hash, container == 'delayed' and call('ZSCORE', set, each) or ''}
      end
    end
  end
  read, members = read + members * MEMBER_BYTES, 0
  if read >= bytes or #jobs >= hits then break end
end
if looked > 0 then place = is_list and string.format('%d', from + looked - 1) or call('ZSCORE', set, id) end
return {looked, read, looked == #ids and #ids < looks and 1 or 0, place, id, jobs}
