-- Read what workers have recorded of why attempts failed in this hour of the clock and in the one
-- before.
--
-- KEYS  1 `<prefix>:<queue>:`
-- ARGV  1 offset_ms
-- Returns the two flat hashes, as attempts.lua writes them.

-- @include queue_state.lua
-- @include failed_attempts.lua

return {failed_reasons()}
