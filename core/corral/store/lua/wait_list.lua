-- Included by scripts that put waiting jobs into a queue, after they have read whether it is
-- paused: the list that the jobs must enter (wire 6.14, trap T1). BullMQ 6 leaves jobs in `wait`
-- while the queue is paused. BullMQ 5 keeps them in `paused`, and its `resume` renames `paused` to
-- `wait`: jobs that are in `wait` then are overwritten, and no client finds them again.
-- Needs in scope: queue (`<prefix>:<queue>:`), is_paused.
-- Leaves: wait_list, the key. Unless the queue is paused, this sends no command.

local wait_list = queue .. 'wait'
if is_paused then
  local aside, kind = queue .. 'paused', redis.call('TYPE', queue .. 'paused').ok
  local version = redis.call('HGET', queue .. 'meta', 'version') -- of the client that connected last
  if kind == 'none' and version and string.find(version, '^bullmq:5%f[%D]') then
    -- The client that paused the queue left its jobs in `wait`: `resume` of BullMQ 5 would
    -- overwrite them.
    if redis.call('TYPE', wait_list).ok == 'list' then redis.call('RENAME', wait_list, aside) end
    kind = 'list'
  end
  if kind == 'list' then wait_list = aside end -- any other type is damage, which the stalled check repairs
end
