-- reap(id, ...) -> how many of these leases were still expired and are taken back
local now, taken = now_ms(), 0
for _, id in ipairs(ARGV) do
  local deadline = call('ZSCORE', P .. 'exp', id)
  if deadline and tonumber(deadline) <= now then
    local spans = release(id, call('HGET', P .. 'lease', id))
    for _, span in ipairs(spans) do put_back(span, span.attempt + 1) end
    taken = taken + 1
  end
end
if taken > 0 then count_depth() end
return taken
