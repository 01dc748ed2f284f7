-- Included where finished jobs are removed. Needs in scope: base (`<prefix>:<queue>:`), call.

local SUFFIXES = {'', ':logs', ':dependencies', ':processed', ':failed', ':unsuccessful'}

-- Delete what belongs to jobs; their locks end on their own. `leave` is called with each job's key before: for failed
-- jobs it is leave_parent of relations.lua, nil for others.
local function remove_jobs(ids, leave)
  local keys = {}
  for _, id in ipairs(ids) do
    if leave then pcall(leave, base .. id) end -- a parent that is damaged keeps nothing else from going
    for _, suffix in ipairs(SUFFIXES) do keys[#keys + 1] = base .. id .. suffix end
    if #keys > 6000 then
      call('UNLINK', unpack(keys))
      keys = {}
    end
  end
  if #keys > 0 then call('UNLINK', unpack(keys)) end
end
