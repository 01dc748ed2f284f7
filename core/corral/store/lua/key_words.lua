-- The queue's own keys (wire 2.1). A job with one of these names as its id (trap T9) cannot be run. What is no part of
-- this text is no key word: one search is cheaper than a table that each run would make.
local KEY_WORDS = [[wait active meta prioritized delayed completed failed waiting-children marker repeat paused events
  stalled stalled-check id pc limiter priority metrics:completed metrics:failed metrics:completed:data
  metrics:failed:data]]
