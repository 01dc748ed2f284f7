-- Finish any number of jobs and fetch more, in one step (wire 6.3 to 6.11).
--
-- KEYS  1 `<prefix>:<queue>:`   2 the record of this worker's last call, `corral:<prefix>:<queue>:call:<worker>`
-- ARGV  1 seq       counts up with each call of this worker; the same seq again repeats the reply and changes nothing
--       2 worker    name; the lock token of a fetched job is `<worker>:<seq>`
--       3 want      how many jobs to fetch at most
--       4 lock_ms   how long a fetched job's lock lives without renewal
--       5 offset_ms added to the server's time
--       6 points    how many minutes of metrics are kept
--       7 ticks     the coming ticks of cron patterns, see iterate.lua
--       8 suspects  how many of the fetched jobs may have stalled before
--       9 confirm_from  a job that stalled so often is not charged another stall until its worker confirms that it
--                   starts, see confirm.lua; '' charges all
--      10 max_bytes how large the hashes of the fetched jobs may be together; the first job may be larger
--       then per ending: kind, id, token, atm, text, stacktrace, delay_ms, keep_count, keep_age_s, keep_limit, attempts,
--       flags; kinds: c completed, f failed, r retried, s snoozed, l rate limited, b handed back
--         atm          the attempts made once this ending counts      text  returnvalue JSON, or failed reason
--         keep_*       retention: count -1 keeps all, 0 none; age '' keeps any age (wire 6.7); limit 0: it is our
--                      default, and removes only jobs that ended under it, see kept.lua
--         attempts     opts.attempts      flags  'l' opts.lifo, 'd' the job has a deduplication id
-- Returns {now_ms, due_ms, limited_ms, codes, jobs, repeated, late, held, trouble, cut}
--         due_ms       until the next delayed job, -1 without one (only looked up where less than `want` came)
--         limited_ms   until the rate limit ends, 0 without one
--         codes        per ending: 0 applied; 1 the job was damaged and is failed, see refused; -1 no such job, -2 no
--                      lock, -3 not active, -4 has pending children, -6 another's lock, -9 has failed children;
--                      -20 nothing was changed: a key is damaged that an operator must repair
--         jobs         {id, {field, value, …}} in the order they were fetched, the hash as it was before this fetch; in a
--                      repeated reply an empty one for each job that max_bytes left no room for
--         late         the iterations among them that still need their next one, see iterate.lua
--         held         how many jobs that stalled before were looked past
--         trouble      '' or {refused, reports, broken, others_count}: flat, the place (from 1) of an ending of code 1, and
--                      why; see damage.lua; `DAMAGED …` or ''; see fetch.lua, 0 for nil
--         cut          1 where max_bytes ended the fetch
-- Errors  STALECALL    a later call of this worker was already answered: this one is a late ghost
--         DAMAGED      `meta` is no hash; nothing was changed

local base, record, ticks_json = KEYS[1], KEYS[2], ARGV[7]
local seq, worker, want, lock_ms = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), ARGV[4]
local token = worker .. ':' .. ARGV[1]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000) + ARGV[5]

local last = redis.call('GET', record)
if last then
  last = cmsgpack.unpack(last)
  if last.seq > seq then return redis.error_reply('STALECALL ' .. seq .. ' after ' .. last.seq) end
  if last.seq == seq then
    local jobs, bytes = {}, tonumber(ARGV[10])
    for _, id in ipairs(last.ids) do
      if redis.pcall('GET', base .. id .. ':lock') == token then
        local hash = (bytes > 0 or #jobs == 0) and redis.pcall('HGETALL', base .. id) or {}
        for i = 1, #hash do bytes = bytes - #hash[i] end
        if bytes < 0 and #jobs > 0 then hash = {} end
        if not hash.err then jobs[#jobs + 1] = {id, hash} end
      end
    end
    return {last.now, -1, 0, last.codes, jobs, 1, last.late, 0, last.refused and {last.refused, {}, '', 0} or '', 0}
  end
end

local meta = redis.pcall('HMGET', base .. 'meta', 'paused', 'concurrency', 'max', 'duration', 'opts.maxLenEvents')
-- @include check_meta.lua
local max_events = meta[5] and string.find(meta[5], '^%d+$') and meta[5] or '10000'
-- @include events.lua
local queue, is_paused = base, meta[1]
-- @include wait_list.lua

-- The rest is a function because of what closures cost: each that refers to a local of the chunk walks past all other
-- locals that closures refer to. Inside of a function they share its references.
local function advance()

-- @include promote.lua
-- @include iterate.lua
-- @include endings.lua
-- @include fetch.lua

if #codes > 0 or #fetched > 0 then
  local reply = {seq = seq, now = now, codes = codes, ids = fetched_ids, late = late, refused = refused}
  call('SET', record, cmsgpack.pack(reply), 'PX', 2 * lock_ms)
end
local trouble = ''
if refused or damage or others_count then
  trouble = {refused or {}, damage and damage.reports or {}, damage and damage.broken or '', others_count or 0}
end
return {now, due_ms, limited_ms, codes, fetched, 0, late, held, trouble, cut and 1 or 0}

end

return advance()
