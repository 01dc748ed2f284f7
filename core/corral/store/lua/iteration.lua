-- Included where the iterations of job schedulers are named (wire 6.21).

local function iteration_id(schedule, ms) return string.format('repeat:%s:%.0f', schedule, ms) end
