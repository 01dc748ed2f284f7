-- Return jobs from the quarantine: each waits behind all other jobs of its priority.
--
-- KEYS  1 `<prefix>:<queue>:`   2 the audit's stream: see audit_entry.lua
-- ARGV  1 offset_ms   then pairs: an id, and the id as the audit shows it
--       then the arguments of audit_entry.lua
-- Returns {replies, audited}, one reply per id: {1, the id that the job has now}; {0, why it cannot
--         be returned}; {-1}: it is not in quarantine. An id that is not returned is not changed at
--         all.

-- @include queue_state.lua
-- @include audit_entry.lua
-- @include quarantine.lua

local damaged = damage(quarantine, 'hash')
if damaged then return refusal(damaged) end

-- Move a job out of the quarantine; the caller has checked that this is possible. Returns its
-- state.
local function return_job(id, entry, source, target, place)
  local own = base .. target
  if source ~= own then
    call('RENAME', source, own)
    for _, suffix in ipairs(suffixes_of(entry)) do
      if call('EXISTS', source .. suffix) == 1 then call('RENAME', source .. suffix, own .. suffix) end
    end
  end
  local delay = call('HGET', own, 'delay')
  if delay and delay ~= '0' then call('HSET', own, 'delay', 0) end -- as for a job that is promoted
  remove_entry(id, entry)
  return put_into_waiting(target, place)
end

local ids, changed, replies = {}, {}, {}
local after
for i = 2, #ARGV, 2 do
  local id, shown = ARGV[i], ARGV[i + 1]
  ids[#ids + 1] = shown
  local text = call('HGET', quarantine, id)
  if not text then
    replies[#replies + 1] = {-1}
  else
    local entry, place = decode_entry(text), nil
    local source, target, why = return_target(id, entry)
    if source then
      local container, unread = container_of(target)
      why = unread or container and 'job ' .. target .. ' is in ' .. container
    end
    if source and not why then place, why = waiting_place(source) end
    if why then
      replies[#replies + 1] = {0, why}
    else
      local state = return_job(id, entry, source, target, place)
      after = target == id and state or {id = target, state = state}
      changed[#changed + 1] = shown
      replies[#replies + 1] = {1, target}
    end
  end
end
if #changed > 0 then signal_work() end
write_entry_of_jobs(ids, changed, 'quarantine', after)
return {replies, audited}
