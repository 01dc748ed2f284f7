-- Included where jobs of ours go that ended under our default retention.
-- Such an id is in `corral:<prefix>:<queue>:kept:completed|failed` with the score that was written into BullMQ's set of
-- that name. A job that is retried, run again or removed, by whichever client, has another score there, or none: it is
-- only forgotten. BullMQ's own retention would remove what other clients have kept.
-- Needs in scope: base (`<prefix>:<queue>:`), now (Unix ms), call, remove_jobs.

local MOST = 1000 -- how many a call removes, as BullMQ's retention with an age; more are left to later calls

-- Note that jobs have ended: score, id, score, id, … Where something else than our set stands, it is moved aside.
local function record_kept(name, scored)
  local key = 'corral:' .. base .. 'kept:' .. name
  if type(redis.pcall('ZADD', key, unpack(scored))) == 'number' then return end
  if call('TYPE', key).ok ~= 'zset' then call('RENAME', key, key .. '~' .. now) end
  call('ZADD', key, unpack(scored))
end

-- Remove those that are older than `age` (seconds), and all but the newest `count`; -1 counts none. `leave` as for
-- remove_jobs.
local function remove_due(name, count, age, leave)
  local key, set = 'corral:' .. base .. 'kept:' .. name, base .. name
  local due = call('ZCOUNT', key, '-inf', now - age * 1000)
  if count >= 0 then due = math.max(due, call('ZCARD', key) - count) end
  if due < 1 then return end
  local last = math.min(due, MOST) - 1
  local found = call('ZRANGE', key, 0, last, 'WITHSCORES')
  local ids, gone = {}, {}
  for i = 1, #found, 2 do ids[#ids + 1] = found[i] end
  local scores = call('ZMSCORE', set, unpack(ids))
  for i, id in ipairs(ids) do
    if scores[i] == found[2 * i] then gone[#gone + 1] = id end
  end
  if #gone > 0 then
    remove_jobs(gone, leave)
    call('ZREM', set, unpack(gone))
  end
  call('ZREMRANGEBYRANK', key, 0, last)
end
