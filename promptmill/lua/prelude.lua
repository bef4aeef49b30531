-- Prepended to every script: the names of the keys, the time, and the moves between them.
-- KEYS[1] is "{model}:". Every key carries that one hash tag, so a cluster keeps a model whole.
--
--   epoch            string  token of the last rebuild; absent = cold
--   rebuilding       string  token of one that goes on
--   lanes            hash    lane -> "job generation version tenant order cost_us charge bucket"
--   q:LANE           list    fresh spans, "start count"
--   ln:O:TENANT:B    zset    lane -> virtual seconds served; only lanes that have fresh spans
--   tb:O:TENANT      zset    bucket -> score of its least-served lane
--   bt:O:B           zset    tenant -> copy of its virtual time, corrected when it comes to the head
--   tv:O             zset    tenant -> virtual time; only tenants that have fresh spans
--   idle:O           zset    tenant -> virtual time it left with, while that is above the least
--   retry:O          zset    "lane generation start count attempt" -> place; attempts 1 and 2
--   solo             zset    the same, from the third attempt on: to be leased alone in a process
--   solo:for         string  worker that empties itself to take a solo span
--   lease            hash    id -> "worker \n bucket \n cost_us \n lane job generation start count attempt;..."
--   exp              zset    lease id -> deadline (ms)
--   held:WORKER      set     its lease ids
--   alone            hash    worker -> its lease of a solo span
--   rendering        set     leases whose rendering has begun
--   run              string  interactive leases since another class last got one
--   depth            hash    queued, queued_us, leased, leased_us
--   tomb:LANE        string  version at which the lane was dropped, for a day
-- O is the order: "i" interactive, "s" normal and bulk. Virtual time is generator-seconds over weight.

local P = KEYS[1]
local call = redis.call
local SOLO = 3

local function now_ms()
  local t = call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end

local function exact(x)
  return string.format('%.17g', x)
end

local function tv(o) return P .. 'tv:' .. o end
local function idle(o) return P .. 'idle:' .. o end
local function bt(o, b) return P .. 'bt:' .. o .. ':' .. b end
local function tb(o, t) return P .. 'tb:' .. o .. ':' .. t end
local function ln(o, t, b) return P .. 'ln:' .. o .. ':' .. t .. ':' .. b end
local function q(lane) return P .. 'q:' .. lane end

local function head(zset)
  local first = call('ZRANGE', zset, 0, 0, 'WITHSCORES')
  return first[1], tonumber(first[2])
end

local lanes_read = {}

-- The registered lane, or false; read once per script.
local function lane_of(lane)
  if lanes_read[lane] == nil then
    local text = call('HGET', P .. 'lanes', lane)
    local r = false
    if text then
      local job, gen, version, tenant, order, cost, charge, bucket =
        string.match(text, '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (.*)$')
      r = {
        job = job, gen = gen, version = tonumber(version), tenant = tenant, order = order,
        cost = tonumber(cost), charge = tonumber(charge), bucket = bucket,
      }
    end
    lanes_read[lane] = r
  end
  return lanes_read[lane]
end

-- Changes of the depth, written once by `count_depth`.
local moved = { queued = 0, queued_us = 0, leased = 0, leased_us = 0 }

local function count_queued(n, cost)
  moved.queued = moved.queued + n
  moved.queued_us = moved.queued_us + n * cost
end

local function count_depth()
  local left = 0
  for field, change in pairs(moved) do
    left = left + call('HINCRBY', P .. 'depth', field, exact(change))
    moved[field] = 0
  end
  if left == 0 then call('DEL', P .. 'depth') end
end

-- After lanes of (tenant, bucket) changed: the bucket's place, or the tenant's leave. A tenant
-- that leaves while others wait keeps its virtual time, else many small jobs in a row would
-- each enter at the least and outrun everyone; when nobody waits the past is forgotten.
local function reorder(o, t, b)
  local _, score = head(ln(o, t, b))
  if score then
    call('ZADD', tb(o, t), exact(score), b)
    return
  end
  call('ZREM', tb(o, t), b)
  call('ZREM', bt(o, b), t)
  if call('EXISTS', tb(o, t)) == 1 then return end
  local vt = call('ZSCORE', tv(o), t)
  call('ZREM', tv(o), t)
  if call('EXISTS', tv(o)) == 1 then
    if vt then call('ZADD', idle(o), vt, t) end
  else
    call('DEL', idle(o), P .. 'run')
  end
end

-- The lane has fresh spans: it, its bucket and its tenant stand in the order. Whoever comes
-- new starts level with the least served, so that idle time is no credit; a lane stands one
-- image behind, else a stream of new lanes could tie ahead of an old one for ever.
local function enter(lane, r)
  local o, t, b = r.order, r.tenant, r.bucket
  if call('ZSCORE', ln(o, t, b), lane) then return end
  if not call('ZSCORE', tv(o), t) then
    local own = tonumber(call('ZSCORE', idle(o), t) or 0)
    local _, least = head(tv(o))
    call('ZADD', tv(o), exact(math.max(own, least or 0)), t)
    call('ZREM', idle(o), t)
  end
  local _, least = head(tb(o, t))
  call('ZADD', ln(o, t, b), exact((least or 0) + r.charge), lane)
  call('ZADD', bt(o, b), call('ZSCORE', tv(o), t), t)
  reorder(o, t, b)
end

local function leave(lane, r)
  if call('ZREM', ln(r.order, r.tenant, r.bucket), lane) == 1 then
    reorder(r.order, r.tenant, r.bucket)
  end
end

-- Adds `amount` virtual seconds (negative: a refund) to a tenant, whether it waits or is idle.
local function charge(r, amount)
  local o, t = r.order, r.tenant
  local vt = call('ZSCORE', tv(o), t)
  if vt then
    vt = exact(math.max(0, tonumber(vt) + amount))
    call('ZADD', tv(o), vt, t)
    -- A copy may be too low, never too high: only what is at the head gets corrected.
    if amount < 0 then
      for _, b in ipairs(call('ZRANGE', tb(o, t), 0, -1)) do call('ZADD', bt(o, b), vt, t) end
    end
    return
  end
  local _, least = head(tv(o))
  if least then
    local own = tonumber(call('ZSCORE', idle(o), t) or 0)
    call('ZADD', idle(o), exact(math.max(own, least) + amount), t)
  end
end

-- Puts a fresh span at the head of its lane, joined to its neighbour when they touch.
local function push_front(lane, start, n)
  local first = call('LINDEX', q(lane), 0)
  if first then
    local s, k = string.match(first, '^(%d+) (%d+)$')
    if tonumber(s) == start + n then
      call('LSET', q(lane), 0, exact(start) .. ' ' .. exact(n + tonumber(k)))
      return
    end
  end
  call('LPUSH', q(lane), exact(start) .. ' ' .. exact(n))
end

local function waiting_key(r, attempt)
  if attempt >= SOLO then return P .. 'solo' end
  return P .. 'retry:' .. r.order
end

-- Adds a span to those that wait for a retry: at `place`, else behind all of them.
local function add_retry(lane, r, start, n, attempt, place)
  local key = waiting_key(r, attempt)
  if not place then
    local last = call('ZRANGE', key, -1, -1, 'WITHSCORES')
    place = exact((tonumber(last[2]) or 0) + 1)
  end
  local member = table.concat({ lane, r.gen, exact(start), exact(n), attempt }, ' ')
  call('ZADD', key, place, member)
end

-- Gives a span back. Unknown lane or another generation: dropped (the audit restores what was
-- right). Returns the registered lane, or false.
local function put_back(span, attempt)
  local r = lane_of(span.lane)
  if not r or r.gen ~= span.gen then return false end
  if attempt == 0 then
    push_front(span.lane, span.start, span.n)
    enter(span.lane, r)
  else
    add_retry(span.lane, r, span.start, span.n, attempt)
  end
  count_queued(span.n, r.cost)
  return r
end

-- What waits for a retry in this lane.
local function retries_of(lane)
  local found = {}
  for _, key in ipairs({ P .. 'retry:i', P .. 'retry:s', P .. 'solo' }) do
    for _, member in ipairs(call('ZRANGE', key, 0, -1)) do
      local l, gen, start, n = string.match(member, '^(%S+) (%S+) (%d+) (%d+) %d+$')
      if l == lane then
        found[#found + 1] = {
          key = key, member = member, gen = gen, start = tonumber(start), n = tonumber(n),
        }
      end
    end
  end
  return found
end

local function images_in(list)
  local total = 0
  for _, text in ipairs(call('LRANGE', list, 0, -1)) do
    total = total + tonumber(string.match(text, ' (%d+)$'))
  end
  return total
end

-- Takes the fresh spans of a registered lane out of the queue.
local function unqueue(lane, r)
  count_queued(-images_in(q(lane)), r.cost)
  call('DEL', q(lane))
  leave(lane, r)
end

local function remove_retry(found, r)
  call('ZREM', found.key, found.member)
  if r then count_queued(-found.n, r.cost) end
end

-- A lease record: worker, bucket, cost in generator-microseconds, 'i' if it was given for
-- interactive work, else 's', text of its spans.
local function parse_lease(record)
  return string.match(record, '^([^\n]*)\n([^\n]*)\n(%d+)\n%l\n(.*)$')
end

local function spans_of(text)
  local spans = {}
  for lane, job, gen, start, n, attempt in
    string.gmatch(text, '(%S+) (%S+) (%S+) (%d+) (%d+) (%d+);')
  do
    spans[#spans + 1] = {
      lane = lane, job = job, gen = gen, start = tonumber(start), n = tonumber(n),
      attempt = tonumber(attempt),
    }
  end
  return spans
end

-- Ends a lease; returns its spans.
local function release(id, record)
  local worker, _, cost, text = parse_lease(record)
  local spans = spans_of(text)
  for _, span in ipairs(spans) do moved.leased = moved.leased - span.n end
  moved.leased_us = moved.leased_us - tonumber(cost)
  call('HDEL', P .. 'lease', id)
  call('ZREM', P .. 'exp', id)
  call('SREM', P .. 'held:' .. worker, id)
  call('SREM', P .. 'rendering', id)
  if call('HGET', P .. 'alone', worker) == id then call('HDEL', P .. 'alone', worker) end
  return spans
end
