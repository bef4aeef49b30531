-- drop(version, tomb_ms, lane, ...) -> how many lanes were here
-- The lanes leave the queue; live leases stay until they end. The tombstone refuses a replace
-- by a process that slept through the change of state.
local version, dropped = tonumber(ARGV[1]), 0
for i = 3, #ARGV do
  local lane = ARGV[i]
  local r = lane_of(lane)
  if not r or r.version <= version then
    local tomb = tonumber(call('GET', P .. 'tomb:' .. lane) or 0)
    call('SET', P .. 'tomb:' .. lane, exact(math.max(tomb, version)), 'PX', ARGV[2])
    if r then
      unqueue(lane, r)
      for _, w in ipairs(retries_of(lane)) do remove_retry(w, r) end
      call('HDEL', P .. 'lanes', lane)
      lanes_read[lane] = false
      dropped = dropped + 1
    end
  end
end
if call('EXISTS', P .. 'solo') == 0 then call('DEL', P .. 'solo:for') end
if dropped > 0 then count_depth() end
return dropped
