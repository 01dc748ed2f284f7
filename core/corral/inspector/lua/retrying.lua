-- Included after opening.lua: makes a finished job wait again (wire 6.16).

local KEPT_BY_PARENT = {failed = {{'ZREM', ':unsuccessful'}, {'HDEL', ':failed'}}, completed = {{'HDEL', ':processed'}}}
local KINDS = {[':unsuccessful'] = 'zset', [':failed'] = 'hash', [':processed'] = 'hash', [':dependencies'] = 'set'}

-- Whether a job can wait again: where, as `way_back` says; or nil, and what is damaged.
local function ready(id, state)
  local wrong = damage(base .. id, 'hash')
  local parent = not wrong and call('HGET', base .. id, 'parentKey')
  if parent then
    wrong = damage(parent .. ':dependencies', KINDS[':dependencies'])
    for _, kept in ipairs(KEPT_BY_PARENT[state]) do wrong = wrong or damage(parent .. kept[2], KINDS[kept[2]]) end
  end
  if wrong then return nil, wrong end
  return way_back(base .. id)
end

-- Its parent waits for it once more, if it had counted it as finished; the parent itself is not moved.
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

-- The caller has taken it out of its set, and gives what `ready` said. With `reset`, as if it had never been tried.
-- Returns the state it is in now.
local function retry(id, state, reset, way)
  local key = base .. id
  local known, opts = pcall(cjson.decode, call('HGET', key, 'opts') or '{}')
  call('HDEL', key, 'finishedOn', 'processedOn', state == 'failed' and 'failedReason' or 'returnvalue')
  if reset then call('HDEL', key, 'atm', 'ats') end
  local after = put_back(id, way, state, known and type(opts) == 'table' and opts.lifo == true)
  rejoin_parent(key, state)
  return after
end
