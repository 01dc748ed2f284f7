-- Included by scripts that only read, and that read the rest where a key is damaged.

-- A command's reply; nil where the key is of a wrong type.
local function read(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if not string.find(reply.err, 'WRONGTYPE', 1, true) then error(reply, 0) end
  return nil
end
