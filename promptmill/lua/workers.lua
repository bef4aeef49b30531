-- workers() -> {worker, status, ...} of those alive; the others are forgotten
for _, worker in ipairs(call('ZRANGEBYSCORE', P .. 'alive', '-inf', now_ms())) do
  call('HDEL', P .. 'workers', worker)
  call('ZREM', P .. 'alive', worker)
end
return call('HGETALL', P .. 'workers')
