-- Finish any number of jobs and fetch more, in one step (wire 6.3 to 6.11).
--
-- KEYS  1 `<prefix>:<queue>:`
--       2 the record of this worker's last call, `corral:<prefix>:<queue>:call:<worker>`
-- ARGV  1 seq       counts up with each call of this worker; the same seq again repeats the reply
--                   and changes nothing
--       2 worker    name; the lock token of a fetched job is `<worker>:<seq>`
--       3 want      how many jobs to fetch at most
--       4 lock_ms   how long a fetched job's lock lives without renewal
--       5 offset_ms added to the server's time
--       6 points    how many minutes of metrics are kept
--       7 ticks     the coming ticks of cron patterns, see iterate.lua
--       8 suspects  how many of the fetched jobs may have stalled before
--       9 confirm_from  a job that stalled so often is not charged another stall until its worker
--                   confirms that it starts, see confirm.lua; '' charges all
--      10 max_bytes how large the hashes of the fetched jobs may be together; the first job may be
--                   larger
--       11 shapes   how many shapes follow. What endings of one call have in common is a shape, and
--                   is sent once
--       then per shape: kind, token, atm, stacktrace, delay_ms, keep_count, keep_age_s, keep_limit,
--         attempts, flags, cause
--         kind         c completed, f failed, r retried, s snoozed, l rate limited, b handed back
--         token        of the lock that was taken when the job was fetched
--         atm          the attempts made once this ending counts      delay_ms  of r, s and l
--         keep_*       retention: count -1 keeps all, 0 none; age '' keeps any age (wire 6.7);
--                      limit 0: it is our default, and removes only jobs that ended under it, see
--                      kept.lua
--         attempts     opts.attempts      flags  'l' opts.lifo, 'd' the job has a deduplication id
--         cause        of f and r: the reason without ids, numbers and addresses, see attempts.lua
--       then per ending: the number of its shape, from 1; id; text: returnvalue JSON, or failed
--         reason
-- Returns {now_ms, due_ms, limited_ms, codes, jobs}, and only where one of them is not 0 or empty,
--         behind these: repeated, pending, held, refused, reports, broken, others_count, cut
--         due_ms       until the next delayed job, -1 without one (only looked up where less than
--                      `want` came)
--         limited_ms   until the rate limit ends, 0 without one
--         codes        0 where all endings were applied. Else a list, per ending: 0 applied; 1 the
--                      job was damaged and has failed, see refused; -1 no such job, -2 no lock,
--                      -3 not active, -4 has pending children, -6 another's lock, -9 has failed
--                      children; -20 nothing was changed: a key is damaged that an operator must
--                      repair
--         jobs         flat, per job: id, n, then the n texts of its hash as it was before this
--                      fetch: field, value, …; in the order they were fetched
--         repeated     1: this is the reply of an earlier try of the same call. n is 0 for each job
--                      that max_bytes left no room for
--         pending      the iterations among the jobs whose successors are not made yet, see
--                      iterate.lua
--         held         how many jobs that stalled before were skipped
--         refused      flat: the place (from 1) of an ending of code 1, and the reason
--         reports, broken  the damaged keys, see damage.lua; broken is '' where there is none
--         others_count see fetch.lua
--         cut          1 where max_bytes ended the fetch
-- Errors  STALECALL    a later call of this worker was already answered: this one was sent before
--                      it and arrived after it
--         DAMAGED      `meta` is no hash; nothing was changed
--
-- Most calls end jobs that have completed and fetch fresh ones: lean_endings.lua and lean_fetch.lua
-- are the fast path for these. The script also works without them: the rest does the same for every
-- call, and goes on where they have stopped.

local base, record, ticks_json, call = KEYS[1], KEYS[2], ARGV[7], redis.call
local seq, worker, want, lock_ms = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), ARGV[4]
local token = worker .. ':' .. ARGV[1]
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000) + ARGV[5]

-- A shape's first argument is `ARGV[SHAPES + number * SHAPE + 1]`, an ending's is
-- `ARGV[ENDINGS + number * ENDING + 1]`.
local SHAPE, ENDING = 11, 3
local SHAPES, ENDINGS = 11 - SHAPE, 11 + ARGV[11] * SHAPE - ENDING
local count = (#ARGV - ENDINGS) / ENDING - 1
local locks = {}
for i = 1, count do locks[i] = base .. ARGV[ENDINGS + i * ENDING + 2] .. ':lock' end
locks[count + 1], locks[count + 2] = record, base .. 'limiter'
local tokens = call('MGET', unpack(locks)) -- nil for what is no text, too
local last, limiter = tokens[count + 1], tokens[count + 2]
-- What earlier calls of this worker have looked up, so that not every call must: the minute up to
-- which the metrics are rolled; the second in which they last looked at the middle of `active`, and
-- when the job there was started, Unix ms, or 0 where few jobs are active, see middle.lua.
local rolled, second, middle = 0, 0, 0

if last then
  -- What a call did: seq, rolled, second, middle, now_ms, codes, ids of the fetched jobs, pending,
  -- refused.
  local _, answered
  _, answered, rolled, second, middle = cmsgpack.unpack_limit(last, 4, 0)
  if answered > seq then return redis.error_reply('STALECALL ' .. seq .. ' after ' .. answered) end
  if answered == seq then
    local _, _, _, _, then_ms, codes, ids, pending, refused = cmsgpack.unpack(last)
    local jobs, bytes = {}, tonumber(ARGV[10])
    for _, id in ipairs(ids) do
      if redis.pcall('GET', base .. id .. ':lock') == token then
        local hash = (bytes > 0 or #jobs == 0) and redis.pcall('HGETALL', base .. id) or {}
        for i = 1, #hash do bytes = bytes - #hash[i] end
        if bytes < 0 and #jobs > 0 then hash = {} end
        if not hash.err then
          jobs[#jobs + 1], jobs[#jobs + 2] = id, #hash
          for i = 1, #hash do jobs[#jobs + 1] = hash[i] end
        end
      end
    end
    return {then_ms, -1, 0, codes, jobs, 1, pending or {}, 0, refused or {}, {}, '', 0, 0}
  end
end

local meta = redis.pcall('HMGET', base .. 'meta', 'paused', 'concurrency', 'max', 'duration', 'opts.maxLenEvents')
-- @include check_meta.lua
local max_events = meta[5] and string.find(meta[5], '^%d+$') and meta[5] or '10000'
local ended, free, fetched, fetched_ids, unwritten, odd = 0, false, {}, {}, {}, false -- set by the fast paths
local end_codes, final = 0, false -- 0 where all endings were applied, else codes; whether the last one finished its job

-- @include lean_endings.lua
if ended == count and not odd then
  -- @include lean_fetch.lua
end

-- @include events.lua
local queue, is_paused = base, meta[1]
-- @include wait_list.lua

-- The rest is a function for the sake of speed: a closure that refers to a local of the chunk walks
-- past all other captured locals of the chunk. Inside of a function, closures share its references.
local function advance()

-- @include promote.lua
if odd then pcall(repairs().mend) end
-- @include endings.lua
for i = 1, #codes do
  if codes[i] ~= 0 then end_codes = codes end
end
if ended < count and end_codes == 0 and not damage then
  -- @include lean_fetch.lua
end
for _, event in ipairs(unwritten) do attempt(nil, call, 'XADD', events, '*', unpack(event)) end
-- @include iterate.lua
-- @include fetch.lua

if #codes > 0 or #fetched > 0 then
  local done = cmsgpack.pack(seq, rolled, second, middle, now, end_codes, fetched_ids, #pending > 0 and pending, refused or false)
  call('SET', record, done, 'PX', 2 * lock_ms)
end
local jobs, size = {}, 0
for i = 1, #fetched do
  local hash = fetched[i][2]
  local length = #hash
  jobs[size + 1], jobs[size + 2] = fetched[i][1], length
  size = size + 2
  for n = 1, length do jobs[size + n] = hash[n] end
  size = size + length
end
if #pending > 0 or held > 0 or refused or damage or others_count or cut then
  return {now, due_ms, limited_ms, end_codes, jobs, 0, pending, held, refused or {}, damage and damage.reports or {},
    damage and damage.broken or '', others_count or 0, cut and 1 or 0}
end
return {now, due_ms, limited_ms, end_codes, jobs}

end

return advance()
