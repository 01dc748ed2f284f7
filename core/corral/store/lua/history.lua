-- Which finished jobs the retention of a queue's declaration would remove: their number, and a
-- sample.
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms   2 count   3 age_s of completed jobs   4 count
--       5 age_s of failed ones; both '' where the declaration has no retention (wire 6.7)
-- Returns for completed and for failed jobs {number, {{id, opts}, …}}; the sample is spread evenly.

local base = KEYS[1]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000) + ARGV[1]
-- @include read.lua

local LOOKS = 25
local replies = {}
for i, name in ipairs({'completed', 'failed'}) do
  local set, count, age = base .. name, tonumber(ARGV[2 * i]), ARGV[2 * i + 1]
  local due, sample = 0, {}
  if count and count ~= 0 then -- count 0 removes a job as it ends, and no other
    if age ~= '' then due = read('ZCOUNT', set, '-inf', now - age * 1000) or 0 end
    if count > 0 then due = math.max(due, (read('ZCARD', set) or 0) - count) end
  end
  local looks = math.min(due, LOOKS)
  for n = 0, looks - 1 do
    local rank = math.floor(n * due / looks)
    local id = redis.call('ZRANGE', set, rank, rank)[1]
    local opts = id and redis.pcall('HGET', base .. id, 'opts')
    if type(opts) == 'string' then sample[#sample + 1] = {id, opts} end
  end
  replies[i] = {due, sample}
end
return replies
