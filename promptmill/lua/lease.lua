-- lease(id, worker, want, ttl_ms, interactive, prefer, quantum, share, mix)
-- -> "COLD" | nil (nothing to do) | the lease record
local id, worker, want = ARGV[1], ARGV[2], tonumber(ARGV[3])
local ttl, interactive, prefer = tonumber(ARGV[4]), ARGV[5] == '1', ARGV[6]
local quantum, share, mix = tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9] == '1'

if call('EXISTS', P .. 'epoch') == 0 then return 'COLD' end
-- The reply was lost and the client asks again: the same answer.
local given = call('HGET', P .. 'lease', id)
if given then return given end
if call('HEXISTS', P .. 'alone', worker) == 1 then return false end

local pieces, last_of, got, cost = {}, {}, 0, 0

local function take(lane, r, start, n, attempt)
  local last = last_of[lane]
  if last and last.start + last.n == start then
    last.n = last.n + n
  else
    last = { lane = lane, r = r, start = start, n = n, attempt = attempt }
    last_of[lane] = last
    pieces[#pieces + 1] = last
  end
  got, cost = got + n, cost + n * r.cost
end

local function capped(bucket)
  local cap = call('HGET', P .. 'caps', bucket)
  return cap and math.min(want, tonumber(cap)) or want
end

-- Waiting retries of one bucket and one attempt: half a micro-batch the first time, a quarter
-- the second, one image from the third on, so that a poison image is soon without neighbours.
local function take_retries(key)
  local bucket, attempt, room
  local entries = call('ZRANGE', key, 0, 127, 'WITHSCORES')
  for i = 1, #entries, 2 do
    local lane, gen, start, n, a = string.match(entries[i], '^(%S+) (%S+) (%d+) (%d+) (%d+)$')
    start, n, a = tonumber(start), tonumber(n), tonumber(a)
    local r = lane_of(lane)
    if not bucket then
      bucket, attempt = r.bucket, a
      room = a >= SOLO and 1 or math.max(1, math.floor(capped(bucket) / 2 ^ a))
    end
    if r.bucket == bucket and a == attempt then
      local k = math.min(n, room - got)
      call('ZREM', key, entries[i])
      if k < n then add_retry(lane, r, start + k, n - k, a, entries[i + 1]) end
      take(lane, r, start, k, a)
      charge(r, k * r.charge)
      if got == room then break end
    end
  end
  return bucket
end

-- The tenant at the head of a bucket, once its copied virtual time is the true one.
local function fresh_head(o, b)
  while true do
    local t, seen = head(bt(o, b))
    if not t then return nil end
    local vt = call('ZSCORE', tv(o), t)
    if tonumber(vt) == seen then return t, seen end
    call('ZADD', bt(o, b), vt, t)
  end
end

-- One turn of a tenant: at most `turn` images from its least-served lanes in the bucket.
-- Returns the virtual seconds they cost.
local function serve(o, t, b, turn)
  local lanes, used, spent = ln(o, t, b), 0, 0
  while used < turn do
    local first = call('ZPOPMIN', lanes)
    local lane, served = first[1], tonumber(first[2])
    if not lane then break end
    local r = lane_of(lane)
    local start, n = string.match(call('LPOP', q(lane)), '^(%d+) (%d+)$')
    start, n = tonumber(start), tonumber(n)
    local k = math.min(n, turn - used)
    if k > quantum and call('EXISTS', lanes) == 1 then k = quantum end
    if k < n then call('LPUSH', q(lane), exact(start + k) .. ' ' .. exact(n - k)) end
    if k < n or call('EXISTS', q(lane)) == 1 then
      call('ZADD', lanes, exact(served + k * r.charge), lane)
    end
    take(lane, r, start, k, 0)
    used, spent = used + k, spent + k * r.charge
  end
  return spent
end

-- Fills up from every lane of one bucket: always the tenant least served in virtual time, at
-- most `quantum` images a turn when there are several, so that they share the micro-batch.
local function fill(o, b, room)
  local moved_on = {}
  while got < room do
    local t, vt = fresh_head(o, b)
    if not t then break end
    local turn = room - got
    if turn > quantum and call('ZCARD', bt(o, b)) > 1 then turn = quantum end
    vt = exact(vt + serve(o, t, b, turn))
    call('ZADD', tv(o), vt, t)
    call('ZADD', bt(o, b), vt, t)
    if call('EXISTS', ln(o, t, b)) == 1 then
      moved_on[t] = true
    else
      reorder(o, t, b)
      moved_on[t] = nil
    end
  end
  for t in pairs(moved_on) do reorder(o, t, b) end
end

-- The bucket of the least-served lane of the least-served tenant; or the one the worker has
-- warm, while the first in it is at most one micro-batch ahead of the least.
local function choose(o)
  local t, vt = head(tv(o))
  if not t then return nil end
  local warm, warm_vt = nil, nil
  if prefer ~= '' then warm, warm_vt = fresh_head(o, prefer) end
  if warm then
    local lane = head(ln(o, warm, prefer))
    if warm_vt <= vt + want * lane_of(lane).charge then return prefer end
  end
  return (head(tb(o, t)))
end

-- Interactive first, but when others wait too they get every (share + 1)-th lease.
local function choose_order()
  local both = call('EXISTS', tv('i')) + call('EXISTS', tv('s')) == 2
  if interactive then
    if both then call('INCR', P .. 'run') end
    return 'i', nil
  end
  if not both then
    if call('EXISTS', tv('i')) == 1 then return 'i', 's' end
    return 's', 'i'
  end
  if tonumber(call('GET', P .. 'run') or 0) >= share then
    call('DEL', P .. 'run')
    return 's', 'i'
  end
  call('INCR', P .. 'run')
  return 'i', 's'
end

-- A solo span goes to a process that holds nothing else, so that a death is the image's own.
-- One worker at a time empties itself for it: it gets nothing until its slots are done.
local held = call('SCARD', P .. 'held:' .. worker)
local bucket = nil
local solo = false
if call('EXISTS', P .. 'solo') == 1 then
  local chosen = call('GET', P .. 'solo:for')
  if held == 0 and not interactive then
    bucket, solo = take_retries(P .. 'solo'), true
    call('DEL', P .. 'solo:for')
  elseif chosen == worker then
    call('PEXPIRE', P .. 'solo:for', 5000)
    return false
  elseif not chosen and not interactive then
    call('SET', P .. 'solo:for', worker, 'PX', 5000)
    return false
  end
end
local hurried = false
if not bucket then
  bucket = take_retries(P .. 'retry:i')
  hurried = bucket ~= nil
end
if not bucket and not interactive then bucket = take_retries(P .. 'retry:s') end
if not bucket then
  local first, second = choose_order()
  bucket = choose(first)
  if not bucket then return false end
  local room = capped(bucket)
  fill(first, bucket, room)
  hurried = first == 'i'
  if second and (mix or not hurried) then fill(second, bucket, room) end
end
for _, o in ipairs({ 'i', 's' }) do
  local _, least = head(tv(o))
  if least then call('ZREMRANGEBYSCORE', idle(o), '-inf', exact(least)) end
end

local text = {}
for i, p in ipairs(pieces) do
  count_queued(-p.n, p.r.cost)
  text[i] = table.concat(
    { p.lane, p.r.job, p.r.gen, exact(p.start), exact(p.n), p.attempt }, ' ') .. ';'
end
moved.leased, moved.leased_us = got, cost
count_depth()
local record = table.concat(
  { worker, bucket, exact(cost), hurried and 'i' or 's', table.concat(text) }, '\n')
call('HSET', P .. 'lease', id, record)
call('ZADD', P .. 'exp', now_ms() + ttl, id)
call('SADD', P .. 'held:' .. worker, id)
if solo then call('HSET', P .. 'alone', worker, id) end
return record
