-- Included after queue_state.lua: what the workers have recorded of failed attempts, see
-- attempts.lua.

-- Returns flat reasons of this hour, and of the hour before; empty without a record.
local function failed_reasons()
  local hour = math.floor(now / 3600000)
  local key = 'corral:' .. base .. 'reasons:'
  return read('HGETALL', key .. string.format('%.0f', hour)) or {},
    read('HGETALL', key .. string.format('%.0f', hour - 1)) or {}
end
