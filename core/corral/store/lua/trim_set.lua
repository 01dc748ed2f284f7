-- Included after remove_jobs.lua: what BullMQ's own retention removes as a job ends (wire 6.7).

local function trim_set(set, count, age, limit, leave)
  if age ~= '' then
    local oldest = now - age * 1000
    local gone = call('ZRANGE', set, oldest, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, limit)
    remove_jobs(gone, leave)
    for from = 1, #gone, 5000 do call('ZREM', set, unpack(gone, from, math.min(from + 4999, #gone))) end
  end
  if count > 0 then
    local gone = call('ZRANGE', set, 0, -count - 1)
    if #gone > 0 then
      remove_jobs(gone, leave)
      call('ZREMRANGEBYRANK', set, 0, -count - 1)
    end
  end
end
