-- Included by add.lua: the fast path. It adds jobs with new ids that go to the waiting list, in a
-- queue without a pause and without a concurrency limit. It writes what the rest of add.lua would
-- write, in the same order, with fewer reads. Where it fails, `done`, `replies`, `seen` and `first`
-- say what must be taken back.

if plain and not (twice or any_exists or meta[1] or meta[2]) then
  -- Passed as arguments: locals that a closure captures cost more.
  local function add_plain(call, base, now, max_events, ids, keys, ARGV, size)
    local events, at, number, total = base .. 'events', 2, 0, #ids
    while at < size do
      local name, opts, last_place = ARGV[at + 1], ARGV[at + 2], at + 7 + (ARGV[at] - 1) * 2
      for place = at + 7, last_place, 2 do
        number = number + 1
        local id = ids[number]
        call('HSET', keys[number], 'name', name, 'data', ARGV[place + 1], 'opts', opts, 'timestamp', now, 'delay', '0',
          'priority', '0')
        call('XADD', events, '*', 'event', 'added', 'jobId', id, 'name', name)
        if number < total then
          call('XADD', events, '*', 'event', 'waiting', 'jobId', id)
        else -- only the last entry trims the stream
          call('XADD', events, 'MAXLEN', '~', max_events, '*', 'event', 'waiting', 'jobId', id)
        end
      end
      at = last_place + 2
    end
    call('LPUSH', base .. 'wait', unpack(ids))
    first = number
    call('ZADD', base .. 'marker', 0, '0')
    call('INCRBY', base .. 'id', number)
    return number
  end

  done, replies = pcall(add_plain, call, base, now, max_events, ids, keys, ARGV, size)
  if done then return replies end
end
