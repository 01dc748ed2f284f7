-- Look at the next of many jobs of one container, the newest first, and give those that match.
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms   2 container
--       3 place, 4 id: of the job that was looked at last: its score, in a list its index; '' to begin
--       5 looks: how many jobs are looked at   6 each: how many bytes it counts as to look at one
--       7 bytes: no other is looked at after so many of payloads and reasons; what is dear to look at counts as more
--       8 hits: no other is looked at after so many that match
--       9 count of texts, and the texts: any of them in the payload or in the failed reason; none: every job
--       then count of names, and the names: of a member of the payload, as JSON spells them; none: every job
--       then count of values, and how they begin as JSON spells them: any of them after any of the names
-- Returns {looked, read, ended, place, id, jobs}: how many were looked at, and as how many bytes they count; 1 if there
--         are no more, else 0; where the next call goes on; {id, flat hash, due score or ''} of each that matches.
--         A member may be one of another object of the payload that has the same name: the caller looks at what it means.

-- @include opening.lua

local container, place, id = ARGV[2], ARGV[3], ARGV[4]
local looks, each_bytes, bytes, hits = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local set = base .. container
local is_list = container == 'wait' or container == 'active' or container == 'paused'
local MOST_MEMBERS = 500 -- of one name in one payload; who has more is given to the caller
local MEMBER_BYTES = 200 -- what looking at one of them costs, as if so many bytes more were read
local STOPS = 2.5 -- string.find stops at each byte that is the text's first: only such bytes cost so much more
local SAMPLE_BYTES, LARGE_BYTES = 32, 4096 -- how often it stops is told by so many bytes, in every large payload and every eighth
local MANY_STOPS = 8 -- fewer cost little, and how far a search came would tell of each character of what is masked

local argument = 9
local function strings()
  local found, count = {}, tonumber(ARGV[argument])
  for i = argument + 1, argument + count do found[#found + 1] = ARGV[i] end
  argument = argument + count + 1
  return found
end
local texts = strings()
local names = strings()
local values = strings()

-- Where the next job stands, though others came or went since.
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
local dear, members = 0, 0

-- How much more than to read it a byte of data costs that is like this one.
local function estimate(data)
  local start = math.floor(#data / 2)
  local sample, stops, at = string.sub(data, start, start + SAMPLE_BYTES - 1), 0, 0
  while first ~= '' do
    at = string.find(sample, first, at + 1, true)
    if not at then break end
    stops = stops + 1
  end
  dear = stops > MANY_STOPS and STOPS * stops / SAMPLE_BYTES or 0
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
    read = read + math.floor((#data + #reason) * (1 + dear))
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
