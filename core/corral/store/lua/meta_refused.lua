-- Included after `meta` was read by redis.pcall, before anything was changed. The store refuses,
-- because its user lacks a right, or because the key is on another node of a cluster. The first
-- word means that nothing was written (replies.py).
if meta.err and not string.find(meta.err, '^%-?WRONGTYPE') then
  local elsewhere = string.find(meta.err, 'non local key', 1, true) or string.find(meta.err, 'same slot', 1, true)
  return redis.error_reply((elsewhere and 'CROSSSLOT ' or 'NOPERM ') .. string.gsub(meta.err, '^%-?ERR ', ''))
end
