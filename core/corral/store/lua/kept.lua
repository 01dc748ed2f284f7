-- Included where our default retention removes jobs. BullMQ's own retention would also remove jobs
-- of other clients. The id of each job that ended under the default is in
-- `corral:<prefix>:<queue>:kept:completed|failed`, with the score that it got in BullMQ's set of
-- that name. If any client retries, runs or removes the job, the score there changes or goes: then
-- the id is only dropped from our set.
-- Needs in scope: base (`<prefix>:<queue>:`), now (Unix ms), call, remove_jobs.

local MOST = 1000 -- how many jobs a call removes, as BullMQ's retention with an age does; later calls remove the rest

-- Record that jobs have ended: score, id, score, id, … A key that is no sorted set is renamed
-- first.
local function record_kept(name, scored)
  local key = 'corral:' .. base .. 'kept:' .. name
  if type(redis.pcall('ZADD', key, unpack(scored))) == 'number' then return end
  if call('TYPE', key).ok ~= 'zset' then call('RENAME', key, key .. '~' .. now) end
  call('ZADD', key, unpack(scored))
end

-- Remove the jobs that are older than `age` (seconds), and all but the newest `count`; -1 means any
-- number. `leave` as for remove_jobs.
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
