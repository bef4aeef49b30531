-- nack(id, charged, spans) -> 1, or 0 when the lease is no longer there
-- The spans go back and their virtual time is refunded; what is not named counts as done.
local record = call('HGET', P .. 'lease', ARGV[1])
if not record then return 0 end
release(ARGV[1], record)
local charged = tonumber(ARGV[2])
local spans = spans_of(ARGV[3])
for i = #spans, 1, -1 do
  local span = spans[i]
  local r = put_back(span, span.attempt + charged)
  if r then charge(r, -span.n * r.charge) end
end
count_depth()
return 1
