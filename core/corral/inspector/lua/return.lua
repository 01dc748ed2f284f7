-- Let jobs come back from the quarantine: each waits, behind all others of its priority.
--
-- KEYS  1 `<prefix>:<queue>:`   2, and the end of ARGV: see told.lua
-- ARGV  1 offset_ms   then pairs: id, and how the audit spells it
-- Returns {replies, told}, one per id: {1, the id that it has now}; {0, why it cannot}; {-1}: it is not in quarantine.
--         Nothing of an id is changed that does not come back.

-- @include opening.lua
-- @include told.lua
-- @include quarantine.lua

local damaged = damage(quarantine, 'hash')
if damaged then return refusal(damaged) end

-- Take a job out of quarantine; the caller knows that it can go. Returns the state it is in now.
local function bring_back(id, entry, source, target, way)
  local own = base .. target
  if source ~= own then
    call('RENAME', source, own)
    for _, suffix in ipairs(suffixes_of(entry)) do
      if call('EXISTS', source .. suffix) == 1 then call('RENAME', source .. suffix, own .. suffix) end
    end
  end
  local delay = call('HGET', own, 'delay')
  if delay and delay ~= '0' then call('HSET', own, 'delay', 0) end -- it waits for nothing any more, as when it is promoted
  forget(id, entry)
  return put_back(target, way)
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
    local entry, way = entry_of(text), nil
    local source, target, why = way_out(id, entry)
    if source then
      local container, unread = container_of(target)
      why = unread or container and 'job ' .. target .. ' is in ' .. container
    end
    if source and not why then way, why = way_back(source) end
    if why then
      replies[#replies + 1] = {0, why}
    else
      local state = bring_back(id, entry, source, target, way)
      after = target == id and state or {id = target, state = state}
      changed[#changed + 1] = shown
      replies[#replies + 1] = {1, target}
    end
  end
end
if #changed > 0 then signal_work() end
tell_jobs(ids, changed, 'quarantine', after)
return {replies, told}
