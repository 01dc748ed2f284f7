-- Included by advance.lua after endings without a problem: the fast path of a fetch. The jobs are
-- in `wait`, and there is no limit, no pause, no priority, no delayed job that is due, and among
-- the jobs no iteration and none that stalled before. It writes what fetch.lua would write, with
-- fewer commands and no closure.
-- Needs in scope: end_codes, the codes of the endings, or 0 where all were applied; final, as
-- endings.lua leaves it.
-- Returns the reply of the script. Where it cannot do all of the fetch, it returns nothing,
-- fetch.lua goes on, and these say what is done: fetched and fetched_ids; unwritten, the events
-- that could not be written; odd, whether the marker could not.

if want > 0 and not (meta[1] or meta[2] or meta[3] or limiter) and (ARGV[9] == '' or tonumber(ARGV[9]) > 0) then
  local events, active, wait, prioritized = base .. 'events', base .. 'active', base .. 'wait', base .. 'prioritized'
  local due, ids, due_ms = free and {} or redis.pcall('ZRANGE', base .. 'delayed', 0, 0, 'WITHSCORES'), nil, -1
  if due[2] then due_ms = math.floor(due[2] / 4096) - now end
  if not due.err and (due_ms > 0 or not due[2]) then
    ids = redis.pcall('LRANGE', wait, -want - 1, -1) -- one more than wanted shows whether there are more
  end
  local fit = ids and not ids.err -- the fast path may go on
  local n = fit and math.min(#ids, want) or 0
  local first = fit and #ids - n + 1
  fit = fit and (n == want or call('EXISTS', prioritized, base .. 'pc') == 0)
  local jobs, size, hashes, starts, bytes = {}, 0, {}, {}, tonumber(ARGV[10])
  -- @include key_words.lua
  for at = 1, n do
    if not fit then break end
    local id = ids[first + n - at]
    local head = string.sub(id, 1, 2)
    local special = head == '0:' or (head == 're' and string.sub(id, 1, 7) == 'repeat:')
      or string.find(KEY_WORDS, id, 1, true)
    local hash = special and {} or redis.pcall('HGETALL', base .. id)
    local length, data, all, started = #hash, 0, 0, 0
    fit = length > 0
    jobs[size + 1], jobs[size + 2] = id, length
    size = size + 2
    for i = 1, length, 2 do
      local field, value = hash[i], hash[i + 1]
      jobs[size + i], jobs[size + i + 1] = field, value
      all = all + #value
      if field == 'data' then data = #value
      elseif field == 'ats' then started = tonumber(value) or 0
      elseif field == 'defa' or field == 'stc' then fit = false end
    end
    size = size + length
    bytes = bytes - (length > 16 and all or data)
    fit = fit and (bytes >= 0 or at == 1)
    fetched_ids[at], hashes[at], starts[at] = id, hash, started
  end

  -- The first write, unless jobs have ended: where it is refused, nothing was changed.
  if fit then
    if n == 0 then
      if final and due_ms < 0 and call('EXISTS', active) == 0 then
        fit = not redis.pcall('XADD', events, '*', 'event', 'drained').err
      end
    elseif n == 1 then
      fit = type(redis.pcall('RPOPLPUSH', wait, active)) == 'string'
    else
      fit = not redis.pcall('LTRIM', wait, 0, -n - 1).err
      if fit and type(redis.pcall('LPUSH', active, unpack(fetched_ids))) == 'table' then
        fit = false
        call('RPUSH', wait, unpack(ids, first))
      end
    end
  end
  if not fit then
    fetched_ids = {}
  else
    for at = 1, n do
      local id = fetched_ids[at]
      local key = base .. id
      call('SET', key .. ':lock', token, 'PX', lock_ms)
      call('HSET', key, 'processedOn', now, 'pb', worker, 'ats', starts[at] + 1)
      if redis.pcall('XADD', events, '*', 'event', 'active', 'jobId', id, 'prev', 'waiting').err then
        unwritten[#unwritten + 1] = {'event', 'active', 'jobId', id, 'prev', 'waiting'}
      end
    end
    -- The chain rule (wire 5.4), as in fetch.lua.
    if first > 1 or (n == want and call('EXISTS', wait, prioritized) > 0) then
      odd = type(redis.pcall('ZADD', base .. 'marker', 0, '0')) == 'table'
    end
    if not odd and #unwritten == 0 then
      if n > 0 or count > 0 then
        call('SET', record, cmsgpack.pack(seq, rolled, second, middle, now, end_codes, fetched_ids), 'PX', 2 * lock_ms)
      end
      return {now, n < want and due_ms or -1, 0, end_codes, jobs}
    end
    for at = 1, n do fetched[at] = {fetched_ids[at], hashes[at]} end
  end
end
