-- Included where a key of the wrong type would end a script half-way; what can be mended is left to the stalled check.
-- Needs in scope: base (`<prefix>:<queue>:`).

-- The error for the first of some keys `{name, type}` that is of another type, or nil.
local function wrong_type(keys)
  for _, each in ipairs(keys) do
    local found = redis.call('TYPE', base .. each[1]).ok
    if found ~= 'none' and found ~= each[2] then
      return redis.error_reply('DAMAGED ' .. base .. each[1] .. ' is a ' .. found .. ', not a ' .. each[2])
    end
  end
  return nil
end
