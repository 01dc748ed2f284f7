-- Included after queue_state.lua by every script that changes something: the audit's entry is
-- written together with the change. If the audit's key is damaged, the script is refused and
-- changes nothing.
--
-- Needs:  KEYS 2: the audit's stream.
--         The last four of ARGV: who; what (the operation); the id of the entry that earlier
--         batches of this operation wrote, or ''; the count in that entry.
-- Leaves: ARGV without those four, so that the script sees only its own arguments; audited, false
--         or {entry's id, flat entry}, which the script returns after its own reply;
--         previous_entry; and the functions below.

local previous_count, previous_entry = table.remove(ARGV), table.remove(ARGV)
local what, who = table.remove(ARGV), table.remove(ARGV)
local audited = false

local damaged_audit = damage(KEYS[2], 'stream')
if damaged_audit then return refusal(damaged_audit) end

-- Write the entry. `count`: how many jobs an operation on many jobs has changed. An operation in
-- batches has one entry: each batch replaces it by one with the new total.
local function write_entry(job, before, after, count)
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
  add('count', count and string.format('%.0f', previous_count + count) or nil)
  if previous_entry ~= '' then call('XDEL', KEYS[2], previous_entry) end
  audited = {call('XADD', KEYS[2], 'MAXLEN', '~', 10000, '*', unpack(entry)), entry}
end

-- The state of the jobs in a container.
local function state_in(container)
  return (container == 'wait' or container == 'paused') and 'waiting' or container
end

-- Write the entry of an operation on given ids: it names a single job, and counts several.
local function write_entry_of_jobs(ids, changed, before, after)
  if #ids == 1 and #changed == 1 and previous_entry == '' then
    write_entry(changed[1], before, after)
  elseif #changed > 0 then
    write_entry(nil, nil, nil, #changed)
  end
end
