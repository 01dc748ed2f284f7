-- Included by advance.lua: takes jobs out of `active` and puts them where their ending says (wire 6.6 to 6.11).
-- Leaves: codes, one per ending; final, whether the last one finished its job for good.

local STRIDE, FIRST = 12, 8
local count = (#ARGV - FIRST + 1) / STRIDE
local codes, final = {}, false

if count > 0 then
  local locks, children = {}, {}
  for i = 1, count do
    local key = base .. ARGV[FIRST + (i - 1) * STRIDE + 1]
    locks[i] = key .. ':lock'
    children[2 * i - 1], children[2 * i] = key .. ':dependencies', key .. ':unsuccessful'
  end
  local tokens = call('MGET', unpack(locks))
  local any_children = call('EXISTS', unpack(children)) > 0
  call('XTRIM', events, 'MAXLEN', '~', max_events)

  -- Why a job cannot be ended by us, or 0 (wire 5.5, 6.6). Nothing was changed where this is not 0.
  local function refusal(i, id, held, completes)
    local key = base .. id
    if not tokens[i] and call('EXISTS', key) == 0 then return -1 end
    if completes and any_children then
      if call('SCARD', key .. ':dependencies') > 0 then return -4 end
      if call('ZCARD', key .. ':unsuccessful') > 0 then return -9 end
    end
    if not tokens[i] then return -2 end
    if tokens[i] ~= held then return -6 end
    if call('LREM', base .. 'active', -1, id) == 0 then return -3 end
    return 0
  end

  local any_delayed = false
  -- @include relations.lua
  -- @include retention.lua

  local released, ended_ids = {}, {}
  local counts = {c = 0, f = 0}

  local function finish(kind, id, key, at)
    local atm, text, keep_count = ARGV[at + 3], ARGV[at + 4], tonumber(ARGV[at + 7])
    local parent = call('HGET', key, 'parentKey')
    local deduplicated = string.find(ARGV[at + 11], 'd', 1, true)
    if parent or deduplicated then settle_relations(kind, id, key, text, parent, deduplicated) end
    if keep_count == 0 then
      remove_jobs({id}, kind == 'f')
    elseif kind == 'c' then
      call('HSET', key, 'returnvalue', text, 'finishedOn', now, 'atm', atm)
    else
      call('HSET', key, 'failedReason', text, 'stacktrace', ARGV[at + 5], 'finishedOn', now, 'atm', atm)
      call('HDEL', key, 'defa')
    end
    retain(kind, id, keep_count, ARGV[at + 8], ARGV[at + 9])
    if kind == 'f' then trim_kept() end -- a failed child that is removed releases its parent, and an event says so
    if kind == 'c' then
      call('XADD', events, '*', 'event', 'completed', 'jobId', id, 'returnvalue', text, 'prev', 'active')
    else
      call('XADD', events, '*', 'event', 'failed', 'jobId', id, 'failedReason', text, 'prev', 'active')
      if tonumber(atm) >= tonumber(ARGV[at + 10]) then
        call('XADD', events, '*', 'event', 'retries-exhausted', 'jobId', id, 'attemptsMade', atm)
      end
    end
    counts[kind] = counts[kind] + 1
  end

  local function back_to_wait(id, key, at, front)
    local priority = tonumber(call('HGET', key, 'priority')) or 0
    if priority > 0 and front then
      call('ZADD', base .. 'prioritized', priority * 4294967296, id)
    elseif priority > 0 then
      add_prioritized(id, priority)
    elseif front or string.find(ARGV[at + 11], 'l', 1, true) then
      call('RPUSH', base .. 'wait', id)
    else
      call('LPUSH', base .. 'wait', id)
    end
    emit_capped('waiting', 'jobId', id, 'prev', 'active')
  end

  local function apply(kind, id, key, at)
    local delay = tonumber(ARGV[at + 6])
    if kind == 'c' or kind == 'f' then return finish(kind, id, key, at) end
    if kind == 'r' then
      call('HSET', key, 'failedReason', ARGV[at + 4], 'stacktrace', ARGV[at + 5], 'atm', ARGV[at + 3])
      if delay == 0 then return back_to_wait(id, key, at, false) end
    end
    if kind == 'r' or kind == 's' then
      call('HSET', key, 'delay', ARGV[at + 6])
      add_delayed(id, now + delay)
      any_delayed = true
      return
    end
    -- No worker honours this value but one that knows a limit of its own; ours do always (wire 6.19, trap T18).
    if kind == 'l' then call('SET', base .. 'limiter', '9007199254740991', 'PX', ARGV[at + 6]) end
    back_to_wait(id, key, at, true)
  end

  for i = 1, count do
    local at = FIRST + (i - 1) * STRIDE
    local kind, id = ARGV[at], ARGV[at + 1]
    if kind == 'r' and tonumber(ARGV[at + 6]) == 0 then promote_due() end -- before the checks, and even if refused
    codes[i] = refusal(i, id, ARGV[at + 2], kind == 'c')
    if codes[i] == 0 then
      released[#released + 1], ended_ids[#ended_ids + 1] = locks[i], id
      apply(kind, id, base .. id, at)
      final = kind == 'c' or kind == 'f'
    end
  end
  if #released > 0 then
    call('UNLINK', unpack(released))
    call('SREM', base .. 'stalled', unpack(ended_ids))
  end
  trim_kept()
  count_minutes('completed', counts.c)
  count_minutes('failed', counts.f)
  if any_delayed then signal_delayed() end
end
