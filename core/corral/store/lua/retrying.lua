-- Included after read.lua: which of the delayed jobs wait for another attempt after a failed one.
-- Needs in scope: base, read.

-- Whether an attempt of a job has failed. Each failed attempt writes `failedReason` and counts in
-- `atm` (wire 3); a snooze, a rate limit, a hand-back and a stall do neither.
local function has_failed(id)
  local key = base .. id
  if redis.pcall('HEXISTS', key, 'failedReason') ~= 1 then return false end
  local made = redis.pcall('HMGET', key, 'atm', 'attemptsMade')
  return (tonumber(made[1] or made[2] or '') or 0) > 0
end

-- The ids of those among the delayed jobs that are due first, in that order, and whether there are
-- further delayed jobs, which are not looked at. 2,000 jobs take the store 1 ms.
local function find_retrying()
  local LOOKS, found = 2000, {}
  local ids = read('ZRANGE', base .. 'delayed', 0, LOOKS) or {}
  local more = #ids > LOOKS
  for i = 1, more and LOOKS or #ids do
    if has_failed(ids[i]) then found[#found + 1] = ids[i] end
  end
  return found, more
end
