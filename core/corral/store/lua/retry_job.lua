-- Included after queue_state.lua: move a finished job back to waiting (wire 6.16).

local KEPT_BY_PARENT = {failed = {{'ZREM', ':unsuccessful'}, {'HDEL', ':failed'}}, completed = {{'HDEL', ':processed'}}}
local KINDS = {[':unsuccessful'] = 'zset', [':failed'] = 'hash', [':processed'] = 'hash', [':dependencies'] = 'set'}

-- The place of a job that is to wait again, as `waiting_place` returns it; or nil and the damage.
local function place_for_retry(id, state)
  local wrong = damage(base .. id, 'hash')
  local parent = not wrong and call('HGET', base .. id, 'parentKey')
  if parent then
    wrong = damage(parent .. ':dependencies', KINDS[':dependencies'])
    for _, kept in ipairs(KEPT_BY_PARENT[state]) do wrong = wrong or damage(parent .. kept[2], KINDS[kept[2]]) end
  end
  if wrong then return nil, wrong end
  return waiting_place(base .. id)
end

-- Let the parent wait for this job again, if it had counted it as finished. The parent itself is
-- not moved.
local function rejoin_parent(key, state)
  local parent = call('HGET', key, 'parentKey')
  if not parent then return end
  for _, kept in ipairs(KEPT_BY_PARENT[state]) do
    if call(kept[1], parent .. kept[2], key) == 1 then
      call('SADD', parent .. ':dependencies', key)
      return
    end
  end
end

-- Move a job to the place that `place_for_retry` returned. The caller has removed it from its
-- container. `reset` counts attempts and starts from zero. Returns its state.
local function retry(id, state, reset, place)
  local key = base .. id
  local known, opts = pcall(cjson.decode, call('HGET', key, 'opts') or '{}')
  call('HDEL', key, 'finishedOn', 'processedOn', state == 'failed' and 'failedReason' or 'returnvalue')
  if reset then call('HDEL', key, 'atm', 'ats') end
  local after = put_into_waiting(id, place, state, known and type(opts) == 'table' and opts.lifo == true)
  rejoin_parent(key, state)
  return after
end
