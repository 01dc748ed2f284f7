-- Remove ids from the quarantine, with the keys that are kept there.
--
-- KEYS  1 `<prefix>:<queue>:`   2 the audit's stream: see audit_entry.lua
-- ARGV  1 offset_ms   then pairs: an id, and the id as the audit shows it
--       then the arguments of audit_entry.lua
-- Returns {codes, audited}, one code per id: 1 removed; -1 the id is not in quarantine.

-- @include queue_state.lua
-- @include audit_entry.lua
-- @include quarantine.lua

local damaged = damage(quarantine, 'hash')
if damaged then return refusal(damaged) end

local ids, changed, codes = {}, {}, {}
for i = 2, #ARGV, 2 do
  local id, shown = ARGV[i], ARGV[i + 1]
  ids[#ids + 1] = shown
  local text = call('HGET', quarantine, id)
  if text then
    local entry = decode_entry(text)
    if entry.key ~= '' then
      local keys = {entry.key}
      for _, suffix in ipairs(suffixes_of(entry)) do keys[#keys + 1] = entry.key .. suffix end
      call('UNLINK', unpack(keys))
    end
    remove_entry(id, entry)
    changed[#changed + 1] = shown
  end
  codes[#codes + 1] = text and 1 or -1
end
write_entry_of_jobs(ids, changed, 'quarantine')
return {codes, audited}
