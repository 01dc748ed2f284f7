-- The names of the queue's own keys (wire 2.1). A job whose id is one of them (trap T9) cannot run.
-- An id that is no part of this text is none of them: one search is cheaper than a table that each
-- run would build.
local KEY_WORDS = [[wait active meta prioritized delayed completed failed waiting-children marker repeat paused events
  stalled stalled-check id pc limiter priority metrics:completed metrics:failed metrics:completed:data
  metrics:failed:data]]
