-- Remove the finished jobs of ours whose default retention is over, where no other job ends; forget
-- those that are gone.
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms   2 count   3 age_s of completed jobs   4 count
--       5 age_s of failed ones, see kept.lua; both are '' where the queue's declaration names a
--       retention: that one holds for all jobs, and our own sets are deleted
-- A key of the wrong type is left alone: endings and the stalled check repair it.

local base = KEYS[1]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000) + ARGV[1]
local max_events = redis.pcall('HGET', base .. 'meta', 'opts.maxLenEvents')
if type(max_events) ~= 'string' or not string.find(max_events, '^%d+$') then max_events = '10000' end
-- @include events.lua

local names = {}
for i, name in ipairs({'completed', 'failed'}) do
  local key = 'corral:' .. base .. 'kept:' .. name
  if call('TYPE', key).ok == 'zset' then
    if ARGV[2 * i] == '' then
      call('UNLINK', key)
    else
      names[#names + 1] = {name, tonumber(ARGV[2 * i]), ARGV[2 * i + 1], name == 'failed'}
    end
  end
end
if #names == 0 then return end

local any_delayed = false -- relations.lua sets it
-- @include relations.lua
-- @include remove_jobs.lua
-- @include kept.lua
for _, each in ipairs(names) do pcall(remove_due, each[1], each[2], each[3], each[4] and leave_parent) end
