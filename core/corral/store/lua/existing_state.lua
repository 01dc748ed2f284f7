-- Included by add.lua where the id of a job exists already: in which state that job is. It stands
-- inside of the branch, since making a closure costs about 900 instructions, and most calls need
-- none.
-- Needs in scope: base (`<prefix>:<queue>:`).

-- The state's public name. '' where no container holds the job, and where one that may hold it
-- cannot be read: a damaged key, or a missing right, is no reason to refuse the call.
-- Searching a list costs time in proportion to its length. So `LOOKS` ids are compared at each end
-- of it, and a job that is in no other container is taken to be in the middle of a longer list.
local function existing_state(id)
  local LOOKS, unread, state = 100, false, ''
  local function ask(command, name, ...)
    local reply = redis.pcall(command, base .. name, ...)
    if type(reply) ~= 'table' then return reply end
    unread = true
    return false
  end

  for _, name in ipairs({'completed', 'failed', 'delayed', 'prioritized', 'waiting-children'}) do
    if ask('ZSCORE', name, id) then return name end
  end
  if ask('EXISTS', id .. ':lock') == 1 then return 'active' end
  for _, name in ipairs({'active', 'wait', 'paused'}) do -- `paused`: where BullMQ 5 keeps waiting jobs of a paused queue
    local public = name == 'active' and 'active' or 'waiting'
    local length = ask('LLEN', name) or 0
    if length > 0 and ask('LPOS', name, id, 'MAXLEN', LOOKS) then return public end
    if length > LOOKS and ask('LPOS', name, id, 'RANK', -1, 'MAXLEN', LOOKS) then return public end
    if length > 2 * LOOKS then state = public end
  end
  return unread and '' or state
end
