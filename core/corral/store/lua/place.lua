-- Included where a job is made without `add.lua`: the next iteration of a schedule, or the job that
-- a deduplication id kept back. Needs what events.lua and wait_list.lua leave.

-- Put a job into the container of its due time (Unix ms) and its priority; the container is written
-- last.
local function place_job(id, delay, due, priority, lifo)
  if delay > 0 then return add_delayed(id, due) end
  emit_capped('waiting', 'jobId', id)
  if priority > 0 then
    add_prioritized(id, priority)
  else
    call(lifo and 'RPUSH' or 'LPUSH', wait_list, id)
  end
end
