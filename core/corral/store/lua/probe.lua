-- Try which commands and keys the store's access control allows this user, without changing
-- anything of a queue. ACL DRYRUN and ACL WHOAMI are no help: they are refused to the users who
-- lack a right.
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 role: `worker`, or `operator`: all of these commands
--       then the other keys that are written: `<type> <key>`, a hash or a stream
-- Returns {commands, keys}: those that are refused. Both are empty where the store accepts no
-- writes, so that nothing could be tried.
--
-- The commands are tried on `corral:<prefix>:<queue>:probe`, a string: commands for other types
-- fail on it as the wrong type, and those for strings may change it. A key is tried with a
-- malformed command: the store checks access first.

-- With their arguments after the key.
local WORKERS = {
  'GET', 'MGET', 'EXISTS', 'TYPE', 'PTTL', 'HEXISTS f', 'HGET f', 'HGETALL', 'HMGET f', 'LLEN', 'LPOS x', 'LRANGE 0 0',
  'SCARD', 'SMEMBERS', 'ZCARD', 'ZRANGE 0 0', 'ZRANGEBYSCORE 0 0', 'ZREVRANGEBYSCORE 0 0', 'ZSCORE x',
  'ZCOUNT 0 0', 'ZMSCORE x', 'HDEL f', 'HINCRBY f 1', 'HSET f v', 'INCR', 'INCRBY 1', 'LPUSH x', 'LREM 0 x',
  'LTRIM 0 -1', 'RPUSH x', 'SADD x', 'SREM x', 'XADD * f v', 'XTRIM MAXLEN 1', 'ZADD 1 x', 'ZREM x',
  'ZREMRANGEBYRANK 0 0', 'PEXPIRE 10000',
}
local OPERATORS = {
  'HKEYS', 'HLEN', 'HSCAN 0', 'HVALS', 'LINDEX 0', 'SISMEMBER x', 'XLEN', 'XRANGE - +', 'XREVRANGE + -',
  'ZREVRANGE 0 0', 'ZREVRANK x', 'LSET 0 x', 'XDEL 0-1',
}
local LAST = {'RPOPLPUSH', 'RENAME', 'GETDEL', 'UNLINK', 'DEL'}

local probe = 'corral:' .. KEYS[1] .. 'probe'
local commands, keys = {}, {}

-- What access control refused, 'key' or 'command'; nil where it let the command pass, even if that
-- failed.
local function denied(...)
  local reply = redis.pcall(...)
  local text = type(reply) == 'table' and reply.err
  if not text then return nil end
  if not (string.find(text, 'ACL failure in script', 1, true)
    or string.find(text, "The user executing the script can't", 1, true)) then return nil, text end
  return (string.find(text, 'access a key', 1, true) or string.find(text, 'access at least one', 1, true)) and 'key'
    or 'command'
end

local function note(name, key, what)
  if what == 'command' then commands[#commands + 1] = name end
  if what == 'key' then keys[#keys + 1] = key end
end

for i = 2, #ARGV do
  local kind, key = string.match(ARGV[i], '^(%l+) (.*)$')
  if kind == 'stream' then
    note('XADD', key, denied('XADD', key, '0-0', 'f', 'v'))
  else
    note('HSET', key, denied('HSET', key, 'f', 'v', 'f'))
  end
end
commands = {} -- they are tried once more below

note('TIME', nil, denied('TIME'))
local what, other = denied('SET', probe, 'x', 'PX', 10000)
note('SET', probe, what)
if what or other then return {commands, keys} end

local function try(line)
  local words = {}
  for word in string.gmatch(line, '%S+') do words[#words + 1] = word end
  local name = words[1]
  table.insert(words, 2, probe)
  if name == 'RENAME' or name == 'RPOPLPUSH' then words[3] = probe end
  note(name, probe, denied(unpack(words)))
end

for _, line in ipairs(WORKERS) do try(line) end
if ARGV[1] == 'operator' then
  for _, line in ipairs(OPERATORS) do try(line) end
end
for _, line in ipairs(LAST) do try(line) end
return {commands, keys}
