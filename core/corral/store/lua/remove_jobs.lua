-- Included where finished jobs are removed. Needs in scope: base (`<prefix>:<queue>:`), call.

local SUFFIXES = {'', ':logs', ':dependencies', ':processed', ':failed', ':unsuccessful'}

-- Delete the keys of jobs, without their locks, which expire. `leave` is called before with each
-- job's key: leave_parent of relations.lua for failed jobs, nil for others.
local function remove_jobs(ids, leave)
  local keys = {}
  for _, id in ipairs(ids) do
    if leave then pcall(leave, base .. id) end -- a damaged parent must not stop the removal
    for _, suffix in ipairs(SUFFIXES) do keys[#keys + 1] = base .. id .. suffix end
    if #keys > 6000 then
      call('UNLINK', unpack(keys))
      keys = {}
    end
  end
  if #keys > 0 then call('UNLINK', unpack(keys)) end
end
