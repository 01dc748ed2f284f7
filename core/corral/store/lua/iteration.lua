-- Included where ids of a job scheduler's iterations are needed (wire 6.21).

local function iteration_id(schedule, ms) return string.format('repeat:%s:%.0f', schedule, ms) end
