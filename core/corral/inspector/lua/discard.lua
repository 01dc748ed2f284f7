-- Remove from the quarantine, with the keys that are kept there.
--
-- KEYS  1 `<prefix>:<queue>:`   2, and the end of ARGV: see told.lua
-- ARGV  1 offset_ms   then pairs: id, and how the audit spells it
-- Returns {codes, told}, one per id: 1 it is gone; -1 it is not in quarantine.

-- @include opening.lua
-- @include told.lua
-- @include quarantine.lua

local damaged = damage(quarantine, 'hash')
if damaged then return refusal(damaged) end

local ids, changed, codes = {}, {}, {}
for i = 2, #ARGV, 2 do
  local id, shown = ARGV[i], ARGV[i + 1]
  ids[#ids + 1] = shown
  local text = call('HGET', quarantine, id)
  if text then
    local entry = entry_of(text)
    if entry.key ~= '' then
      local keys = {entry.key}
      for _, suffix in ipairs(suffixes_of(entry)) do keys[#keys + 1] = entry.key .. suffix end
      call('UNLINK', unpack(keys))
    end
    forget(id, entry)
    changed[#changed + 1] = shown
  end
  codes[#codes + 1] = text and 1 or -1
end
tell_jobs(ids, changed, 'quarantine')
return {codes, told}
