-- Included after queue_state.lua: the queue's quarantine. Workers move an id there if its own key
-- is not a hash, or if it has the name of one of the queue's own keys (trap T9).
--
-- The quarantine is a hash: by id {"at", "from", "reason", "key"} as JSON. `key`: where the key of
-- that id is kept now, or empty. Ids are bytes.

local quarantine = 'corral:' .. base .. 'quarantine'
local is_key_word = repairs().is_key_word

-- Decode the entry of an id: each field is a text, '' if it is missing. It never fails: if the text
-- is not such JSON, it becomes the reason.
local function decode_entry(text)
  local known, held = pcall(cjson.decode, text)
  if not known or type(held) ~= 'table' then return {at = '', from = '', reason = text, key = ''} end
  local entry = {}
  for _, field in ipairs({'at', 'from', 'reason', 'key'}) do
    local value = held[field]
    if type(value) == 'number' then value = string.format('%.0f', value) end
    entry[field] = type(value) == 'string' and value or ''
  end
  local below = quarantine .. ':'
  if string.sub(entry.key, 1, #below) ~= below then entry.key = '' end -- not a key of the quarantine
  return entry
end

-- The suffixes of the keys that are kept beside an id's own key. A suffix that makes the key of
-- another id is left out.
local function suffixes_of(entry)
  local found = {}
  local name = string.sub(entry.key, #quarantine + 2)
  for _, suffix in ipairs(repairs().suffixes) do
    if call('HEXISTS', quarantine, name .. suffix) == 0 then found[#found + 1] = suffix end
  end
  return found
end

-- Where an id can be returned from: the kept key, and the id that the job will have. If it cannot
-- be returned: nil, that id, and the reason.
local function return_target(id, entry)
  local target = is_key_word(id) and 'returned-' .. id or id
  local source, own = entry.key, base .. target
  if id == '' then return nil, target, 'no job can have an empty id' end
  if source == '' and is_key_word(id) then return nil, target, 'nothing is kept of it' end
  if source == '' then source = own end -- an operator may have repaired it in place
  if call('EXISTS', source) == 0 then
    return nil, target, source == own and 'nothing is kept of it' or source .. ' is gone'
  end
  local wrong = damage(source, 'hash')
  if wrong then return nil, target, wrong end
  if source ~= own then
    if call('EXISTS', own) == 1 then return nil, target, own .. ' is taken' end
    for _, suffix in ipairs(suffixes_of(entry)) do
      if call('EXISTS', source .. suffix) == 1 and call('EXISTS', own .. suffix) == 1 then
        return nil, target, own .. suffix .. ' is taken'
      end
    end
  end
  return source, target
end

-- Remove the entry of an id. If an earlier key of the same id is kept as well, the entry is changed
-- to name that key.
local function remove_entry(id, entry)
  call('HDEL', quarantine, id)
  local first = quarantine .. ':' .. id
  local is_numbered = string.sub(entry.key, 1, #first + 1) == first .. '~'
  local number = is_numbered and tonumber(string.sub(entry.key, #first + 2)) or 1
  for n = math.min(number, 1000) - 1, 1, -1 do
    local name = n == 1 and id or id .. '~' .. n
    local is_anothers = n > 1 and call('HEXISTS', quarantine, name) == 1
    if not is_anothers and call('EXISTS', quarantine .. ':' .. name) == 1 then
      entry.at, entry.key = tonumber(entry.at) or 0, quarantine .. ':' .. name
      call('HSET', quarantine, id, cjson.encode(entry))
      return
    end
  end
end
