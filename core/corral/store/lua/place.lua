-- Included where a job is made that nobody has asked for by `add.lua`: the next iteration of a schedule, or the job that a
-- deduplication id kept back. Needs what events.lua and wait_list.lua leave.

-- Put a job where its time and its priority say; the container is the last that is written. `due` is in Unix ms.
local function place_job(id, delay, due, priority, lifo)
  if delay > 0 then return add_delayed(id, due) end
  emit_capped('waiting', 'jobId', id)
  if priority > 0 then
    add_prioritized(id, priority)
  else
    call(lifo and 'RPUSH' or 'LPUSH', wait_list, id)
  end
end
