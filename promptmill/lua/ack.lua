-- ack(id) -> 1, or 0 when the lease is no longer there
local record = call('HGET', P .. 'lease', ARGV[1])
if not record then return 0 end
release(ARGV[1], record)
count_depth()
return 1
