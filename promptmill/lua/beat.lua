-- beat(worker, ttl_ms, id, rendering, id, rendering, ...) -> the ids that are not this worker's
local worker, deadline, gone = ARGV[1], now_ms() + tonumber(ARGV[2]), {}
for i = 3, #ARGV, 2 do
  local id = ARGV[i]
  if call('SISMEMBER', P .. 'held:' .. worker, id) == 1 then
    call('ZADD', P .. 'exp', 'XX', deadline, id)
    call(ARGV[i + 1] == '1' and 'SADD' or 'SREM', P .. 'rendering', id)
  else
    gone[#gone + 1] = id
  end
end
return gone
