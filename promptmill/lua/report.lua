-- report(worker, status, ttl_ms): the worker is alive until ttl from now
call('HSET', P .. 'workers', ARGV[1], ARGV[2])
call('ZADD', P .. 'alive', now_ms() + tonumber(ARGV[3]), ARGV[1])
return 1
