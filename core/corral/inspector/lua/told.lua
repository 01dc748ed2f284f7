-- Included after opening.lua by every script that changes something: the audit's entry is written with the change. Where
-- that cannot be, because the audit's key is damaged, nothing is changed.
-- Needs: KEYS 2 the audit's stream
--        the last four of ARGV: who, what, the entry that the batches before have left or '', what that entry counts
-- Takes those four off ARGV: what is left are the script's own.
-- Leaves: told, which the script returns beside its reply; earlier, the third of them; and the functions below.

local counted, earlier, what, who = table.remove(ARGV), table.remove(ARGV), table.remove(ARGV), table.remove(ARGV)
local told = false

local unaudited = damage(KEYS[2], 'stream')
if unaudited then return refusal(unaudited) end

-- Write down what was done. Of many jobs `count` says how many; an operation in batches has one entry, and each batch
-- replaces it by one that counts it, too.
local function tell(job, before, after, count)
  local prefix, queue = string.match(KEYS[1], '^(.*):([^:]+):$')
  local entry = {'prefix', prefix, 'who', who, 'what', what, 'queue', queue}
  local function add(field, value)
    if value ~= nil then
      entry[#entry + 1] = field
      entry[#entry + 1] = value
    end
  end
  add('job', job)
  add('before', before ~= nil and cjson.encode(before) or nil)
  add('after', after ~= nil and cjson.encode(after) or nil)
  add('count', count and string.format('%.0f', counted + count) or nil)
  if earlier ~= '' then call('XDEL', KEYS[2], earlier) end
  told = {call('XADD', KEYS[2], 'MAXLEN', '~', 10000, '*', unpack(entry)), entry}
end

-- The public name of a container's state.
local function state_in(container)
  return (container == 'wait' or container == 'paused') and 'waiting' or container
end

-- An operation on one job names it; one on many counts those that it changed.
local function tell_jobs(ids, changed, before, after)
  if #ids == 1 and #changed == 1 and earlier == '' then
    tell(changed[1], before, after)
  elseif #changed > 0 then
    tell(nil, nil, nil, #changed)
  end
end
