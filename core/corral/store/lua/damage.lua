-- Included by events.lua: what scripts do where a key is damaged, so that it costs one job and no innocent one.
-- Redis rolls nothing back: a script that ends half-way leaves jobs in no container, unseen and for ever. So what a
-- script does for one job is a step of its own, run by `attempt`, which mends what stands in the way and tries again.
-- Needs in scope: base (`<prefix>:<queue>:`), now (Unix ms).
-- Leaves: call, KEY_WORDS, attempt, repairs; damage, nil until something was found damaged, then with the fields reports
-- (flat, what was put into the quarantine: id or name of a key, why) and broken (what only an operator can repair, or nil).

local call = redis.call
local damage

-- @include key_words.lua

-- What is needed only where something is damaged. A closure costs the server about 900 instructions whether it is called
-- or not, so these are made by the first who needs them.
local function repairs()
  if damage then return damage end
  local reports = {}
  local TYPES = {
    wait = 'list', active = 'list', meta = 'hash', prioritized = 'zset', delayed = 'zset', completed = 'zset',
    failed = 'zset', ['waiting-children'] = 'zset', marker = 'zset', ['repeat'] = 'zset', paused = 'list',
    events = 'stream', stalled = 'set', ['stalled-check'] = 'string', id = 'string', pc = 'string',
    limiter = 'string', priority = 'zset', ['metrics:completed'] = 'hash', ['metrics:failed'] = 'hash',
    ['metrics:completed:data'] = 'list', ['metrics:failed:data'] = 'list',
  }
  local COUNTERS = {id = true, pc = true, limiter = true}
  local SUFFIXES = {':logs', ':dependencies', ':processed', ':failed', ':unsuccessful'}
  local last_key

  local function is_key_word(id) return TYPES[id] ~= nil end

  -- What is wrong with a key, in words; nil where it is of that type, or is not there.
  local function wrong_type(key, wanted)
    local found = redis.call('TYPE', key).ok
    if found ~= 'none' and found ~= wanted then return key .. ' is a ' .. found .. ', not a ' .. wanted end
    return nil
  end

  -- What is wrong with the first of these keys of the queue that is damaged.
  local function first_wrong(...)
    for _, name in ipairs({...}) do
      local wrong = wrong_type(base .. name, TYPES[name])
      if wrong then return wrong end
    end
    return nil
  end

  local function text_of(err)
    local text = type(err) == 'table' and tostring(err.err) or tostring(err)
    text = string.gsub(text, '^user_script:%d+: ', '')
    return (string.gsub(text, ' script: %w*,? ?on @?user_script:.*$', '')) -- and not "ACL failure in script: …"
  end

  -- Whether a key of this name belongs to the queue itself, or to another job.
  local function is_anothers(id)
    if is_key_word(id) or string.find(id, '^d[en]:') or string.find(id, ':lock$') then return true end
    for _, suffix in ipairs(SUFFIXES) do
      if string.sub(id, -#suffix) == suffix then return true end
    end
    return string.sub(id, 1, 7) == 'repeat:'
      and type(redis.pcall('ZSCORE', base .. 'repeat', string.sub(id, 8))) == 'string'
  end

  -- Put an id into the quarantine (`corral:<prefix>:<queue>:quarantine`), with what stands under its name: there nothing
  -- that tidies up below the queue's own prefix finds it.
  local function set_aside(id, from, reason)
    local quarantine, key = 'corral:' .. base .. 'quarantine', base .. id
    local kind = redis.call('TYPE', quarantine).ok
    if kind ~= 'hash' and kind ~= 'none' then redis.call('RENAME', quarantine, quarantine .. '~' .. now) end
    local known, entry = pcall(cjson.decode, redis.call('HGET', quarantine, id) or '')
    local kept = known and type(entry) == 'table' and type(entry.key) == 'string' and entry.key or ''
    if (from == 'key' or not is_anothers(id)) and redis.call('EXISTS', key) == 1 then
      kept = quarantine .. ':' .. id
      local number = 1
      while redis.call('EXISTS', kept) == 1 do
        number = number + 1
        kept = quarantine .. ':' .. id .. '~' .. number
      end
      redis.call('RENAME', key, kept)
      for _, suffix in ipairs(SUFFIXES) do
        if not is_key_word(id .. suffix) and redis.call('EXISTS', key .. suffix) == 1 then
          redis.call('RENAME', key .. suffix, kept .. suffix)
        end
      end
    end
    redis.call('HSET', quarantine, id, cjson.encode({at = now, from = from, reason = reason, key = kept}))
    reports[#reports + 1] = id
    reports[#reports + 1] = reason
  end

  -- Move away what stands where one of the queue's own keys belongs. The three without which no client can go on are an
  -- operator's to repair.
  local function mend()
    if damage.broken then return end
    for name, wanted in pairs(TYPES) do
      local key = base .. name
      local kind = redis.call('TYPE', key).ok
      local fits = kind == 'none' or kind == wanted
      if kind == 'string' and COUNTERS[name] then
        local text = redis.call('GET', key)
        fits = string.find(text, '^%-?%d+$') ~= nil and #text < 19
      end
      if not fits and (name == 'wait' or name == 'active' or name == 'meta') then
        damage.broken = 'DAMAGED ' .. key .. ' is a ' .. kind .. ', not a ' .. wanted
      elseif not fits then
        set_aside(name, 'key', key .. ' was a ' .. kind .. ', not a ' .. (COUNTERS[name] and 'counter' or wanted))
      end
    end
  end

  -- What refuses a command in the middle of a script, unlike all other refusals: access control, in the words of Valkey
  -- and Redis 7.2, or of 7.0; and a cluster, where the key is on another node. nil for anything else.
  local function late_refusal(err)
    local text = text_of(err)
    if string.find(text, 'ACL failure in script', 1, true)
      or string.find(text, "The user executing the script can't", 1, true) then return 'NOPERM' end
    return string.find(text, 'non local key', 1, true) and 'CROSSSLOT' or nil
  end

  -- Pass on what is no damage: the store refuses to write, or the caller has no right to. Trying again repairs nothing.
  local function pass_on_refusal(err)
    local word = string.match(text_of(err), '^%-?(%u+)%f[ ]')
    if late_refusal(err) or (word and word ~= 'ERR' and word ~= 'WRONGTYPE') then error(err, 0) end
  end

  local function traced(command, key, ...)
    last_key = key
    return redis.call(command, key, ...)
  end

  local function try_again(err, undo, step, ...)
    if undo then undo() end
    pass_on_refusal(err)
    mend()
    call, last_key = traced, base
    local done, result = pcall(step, ...)
    call = redis.call
    if done then return true, result end
    if undo then undo() end
    pass_on_refusal(result)
    local reason, kind = last_key .. ' is damaged', redis.call('TYPE', last_key).ok
    if kind ~= 'none' then reason = reason .. ' (a ' .. kind .. ')' end
    return false, reason .. ': ' .. text_of(result)
  end

  damage = {reports = reports, types = TYPES, suffixes = SUFFIXES, is_key_word = is_key_word, wrong_type = wrong_type,
    first_wrong = first_wrong, text_of = text_of, set_aside = set_aside, mend = mend, try_again = try_again,
    pass_on_refusal = pass_on_refusal, late_refusal = late_refusal}
  return damage
end

-- Run a step; if it fails, undo it, mend the queue's keys, and run it once more. Returns true and what it returned, or
-- false and a sentence that names the damaged key. A step must be one that may be run again after its undo.
local function attempt(undo, step, ...)
  local done, result = pcall(step, ...)
  if done then return true, result end
  return repairs().try_again(result, undo, step, ...)
end
