-- expired(limit) -> {id, record, rendering, id, record, rendering, ...}; changes nothing
local found = {}
for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'exp', '-inf', now_ms(), 'LIMIT', 0, ARGV[1])) do
  found[#found + 1] = id
  found[#found + 1] = call('HGET', P .. 'lease', id)
  found[#found + 1] = call('SISMEMBER', P .. 'rendering', id)
end
return found
