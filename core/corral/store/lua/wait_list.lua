-- Included by scripts that put waiting jobs into a queue, after they have read whether it is paused: which list such jobs
-- enter (wire 6.14, trap T1). BullMQ 6 leaves them in `wait` while the queue is paused. BullMQ 5 keeps them in `paused`, and
-- its `resume` renames `paused` to `wait`: whatever stands in `wait` then is overwritten, and no client finds those jobs again.
-- Needs in scope: queue (`<prefix>:<queue>:`), is_paused.
-- Leaves: wait_list, the key. Nothing is asked of the store unless the queue is paused.

local wait_list = queue .. 'wait'
if is_paused then
  local aside, kind = queue .. 'paused', redis.call('TYPE', queue .. 'paused').ok
  local version = redis.call('HGET', queue .. 'meta', 'version') -- of the client that connected last
  if kind == 'none' and version and string.find(version, '^bullmq:5%f[%D]') then
    -- The client that paused the queue left its jobs in `wait`: `resume` of BullMQ 5 would overwrite them.
    if redis.call('TYPE', wait_list).ok == 'list' then redis.call('RENAME', wait_list, aside) end
    kind = 'list'
  end
  if kind == 'list' then wait_list = aside end -- anything else there is damaged, and the stalled check mends it
end
