-- snapshot(lane, ...) -> {queued, leased, retry, registered} of each lane, flat, at one instant
-- Of a registered lane only its own generation counts: an older lease cannot commit.
local leased, waiting = {}, {}

local function add(counts, lane, gen, n)
  local r = lane_of(lane)
  if not r or r.gen == gen then counts[lane] = (counts[lane] or 0) + n end
end

for _, record in ipairs(call('HVALS', P .. 'lease')) do
  local _, _, _, text = parse_lease(record)
  for _, span in ipairs(spans_of(text)) do add(leased, span.lane, span.gen, span.n) end
end
for _, key in ipairs({ P .. 'retry:i', P .. 'retry:s', P .. 'solo' }) do
  for _, member in ipairs(call('ZRANGE', key, 0, -1)) do
    local lane, gen, n = string.match(member, '^(%S+) (%S+) %d+ (%d+) %d+$')
    add(waiting, lane, gen, tonumber(n))
  end
end

local counts = {}
for _, lane in ipairs(ARGV) do
  counts[#counts + 1] = images_in(q(lane))
  counts[#counts + 1] = leased[lane] or 0
  counts[#counts + 1] = waiting[lane] or 0
  counts[#counts + 1] = lane_of(lane) and 1 or 0
end
return counts
