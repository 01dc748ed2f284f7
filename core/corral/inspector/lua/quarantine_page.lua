-- Read a page of the quarantine: the newest first if it has not more than a thousand ids, otherwise
-- in no order.
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms   2 start   3 limit
-- Returns {total, entries}; entries: rows {id, at, from, reason, key, the id that the returned job
--         will have, why it cannot be returned or ''}.

-- @include queue_state.lua
-- @include quarantine.lua

local SORTED = 1000
local wrong = damage(quarantine, 'hash')
if wrong then return refusal(wrong) end

local start, limit = tonumber(ARGV[2]), tonumber(ARGV[3])
local total = call('HLEN', quarantine)
local found = {}
local function add(flat)
  for i = 1, #flat, 2 do found[#found + 1] = {id = flat[i], text = flat[i + 1]} end
end
if total <= SORTED then
  add(call('HGETALL', quarantine))
  for _, each in ipairs(found) do each.at = tonumber(decode_entry(each.text).at) or 0 end
  table.sort(found, function(a, b)
    if a.at ~= b.at then return a.at > b.at end
    return a.id < b.id
  end)
else
  local cursor = '0'
  repeat
    local reply = call('HSCAN', quarantine, cursor, 'COUNT', SORTED)
    cursor = reply[1]
    add(reply[2])
  until cursor == '0' or #found >= start + limit
end

local entries = {}
for i = start + 1, math.min(start + limit, #found) do
  local id, entry = found[i].id, decode_entry(found[i].text)
  local _, target, why = return_target(id, entry)
  entries[#entries + 1] = {id, entry.at, entry.from, string.sub(entry.reason, 1, 1000), entry.key, target, why or ''}
end
return {total, entries}
