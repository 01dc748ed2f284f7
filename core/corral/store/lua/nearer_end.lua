-- Included where jobs leave `active`. LREM walks to them from one end, 5 µs per 1,000 ids: 0.5 ms for what is at the other
-- end of 100,000. Needs in scope: base (`<prefix>:<queue>:`), call.

-- Which end a job is nearer to, as LREM wants it: -1 is the tail, where those stand that run longest. It looks at more and
-- more ids from both ends; in the middle, what is found so costs as much as what is saved.
local function nearer_end(id, running)
  local looks = 100
  while looks * 5 < running do
    if call('LPOS', base .. 'active', id, 'RANK', -1, 'MAXLEN', looks) then return -1 end
    if call('LPOS', base .. 'active', id, 'MAXLEN', looks) then return 1 end
    looks = looks * 5
  end
  return -1
end
