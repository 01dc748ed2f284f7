-- Included by events.lua: what scripts do where a key is damaged, so that only the job of that key
-- is lost.
-- Redis rolls nothing back: a script that ends half-way would leave jobs in no container, where no
-- client ever finds them. So what a script does for one job is a step of its own. `attempt` runs
-- it; after a failure, it repairs keys and tries again.
-- Needs in scope: base (`<prefix>:<queue>:`), now (Unix ms).
-- Leaves: call, KEY_WORDS, attempt, repairs; damage, nil until a damaged key was found, then with
-- the fields reports (flat: id or name of a key that was moved into the quarantine, reason) and
-- broken (a key that only an operator can repair, or nil).

local call = redis.call
local damage

-- @include key_words.lua

-- The functions that are needed only where a key is damaged. A closure costs the server about 900
-- instructions whether it is called or not, so the first caller makes them.
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

  -- Say what is wrong with a key; nil where it has that type, or does not exist.
  local function wrong_type(key, wanted)
    local found = redis.call('TYPE', key).ok
    if found ~= 'none' and found ~= wanted then return key .. ' is a ' .. found .. ', not a ' .. wanted end
    return nil
  end

  -- Say what is wrong with the first damaged key of these.
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

  -- Put an id into the quarantine (`corral:<prefix>:<queue>:quarantine`), and move the key of that
  -- name there. BullMQ deletes unknown keys below the queue's own prefix, and does not find it
  -- there.
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

  -- Move keys of a wrong type away from the names of the queue's own keys. No client can go on
  -- without `meta`, `wait` and `active`, so these are left for an operator to repair.
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

  -- The word of a refusal that may come in the middle of a script; nil for any other error. There
  -- are two: by access control, whose text differs between Redis 7.0 and later servers, and by a
  -- cluster, where the key is on another node.
  local function late_refusal(err)
    local text = text_of(err)
    if string.find(text, 'ACL failure in script', 1, true)
      or string.find(text, "The user executing the script can't", 1, true) then return 'NOPERM' end
    return string.find(text, 'non local key', 1, true) and 'CROSSSLOT' or nil
  end

  -- Raise an error that is no damage: the store refuses to write, or the caller lacks a right.
  -- Another try would not help.
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

-- Run a step. If it fails, undo it, repair the queue's keys, and run it once more: a step must
-- allow that. Returns true and what the step returned, or false and a sentence that names the
-- damaged key.
local function attempt(undo, step, ...)
  local done, result = pcall(step, ...)
  if done then return true, result end
  return repairs().try_again(result, undo, step, ...)
end
