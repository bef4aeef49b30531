-- replace(lane, job, generation, version, tenant, order, cost_us, charge, bucket, spans)
-- -> 1, or 0 when a newer state of the job was here already
-- The lane's queue becomes `spans` ("start count attempt;...") minus what is leased or waits
-- for a retry in this generation. Calling it again changes nothing.
local lane, gen, version = ARGV[1], ARGV[3], tonumber(ARGV[4])
local tomb = call('GET', P .. 'tomb:' .. lane)
if tomb and version < tonumber(tomb) then return 0 end
local old = lane_of(lane)
if old and (version < old.version or tonumber(gen) < tonumber(old.gen)) then return 0 end

local meta = table.concat(
  { ARGV[2], gen, ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9] }, ' ')
local busy, waiting = {}, retries_of(lane)
if old then unqueue(lane, old) end
call('HSET', P .. 'lanes', lane, meta)
lanes_read[lane] = nil
local r = lane_of(lane)
for _, w in ipairs(waiting) do
  remove_retry(w, old)
  if w.gen == gen then
    local attempt = tonumber(string.match(w.member, ' (%d+)$'))
    add_retry(lane, r, w.start, w.n, attempt)
    count_queued(w.n, r.cost)
    busy[#busy + 1] = { w.start, w.start + w.n }
  end
end
for _, record in ipairs(call('HVALS', P .. 'lease')) do
  local _, _, _, text = parse_lease(record)
  for _, span in ipairs(spans_of(text)) do
    if span.lane == lane and span.gen == gen then
      busy[#busy + 1] = { span.start, span.start + span.n }
    end
  end
end
table.sort(busy, function(a, b) return a[1] < b[1] end)

local fresh = {}
local function add(from, to, attempt)
  if from >= to then return end
  count_queued(to - from, r.cost)
  if attempt > 0 then
    add_retry(lane, r, from, to - from, attempt)
  elseif #fresh > 0 and fresh[#fresh][2] == from then
    fresh[#fresh][2] = to
  else
    fresh[#fresh + 1] = { from, to }
  end
end

for start, n, attempt in string.gmatch(ARGV[10], '(%d+) (%d+) (%d+);') do
  local from, to = tonumber(start), tonumber(start) + tonumber(n)
  for _, b in ipairs(busy) do
    if b[1] >= to then break end
    if b[2] > from then
      add(from, math.min(b[1], to), tonumber(attempt))
      from = b[2]
    end
  end
  add(from, to, tonumber(attempt))
end
local texts = {}
for i, f in ipairs(fresh) do
  texts[#texts + 1] = exact(f[1]) .. ' ' .. exact(f[2] - f[1])
  if #texts == 1000 or i == #fresh then
    call('RPUSH', q(lane), unpack(texts))
    texts = {}
  end
end
if #fresh > 0 then enter(lane, r) end
call('DEL', P .. 'tomb:' .. lane)
count_depth()
return 1
