-- Included by add.lua: jobs of new ids that only go to the waiting list of a queue without a pause and without a limit on
-- how many run. It does what the rest of add.lua does for them, in the same order, and asks for nothing that cannot be.
-- Where it fails, it leaves in `done`, `replies`, `seen` and `first` what there is to take back.

if plain and not (twice or any_exists or meta[1] or meta[2]) then
  -- What it needs is handed in: what a closure takes from around it costs more.
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
        else -- the stream is trimmed once, by the last entry
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
