-- What the scripts about a session begin with. KEYS, as far as one needs them:
--   SESSION   hash: ticket, claimed, owner (a nonce), removed (JSON: spans of epochs)
--   STREAM    hash, of one start: epoch, last, queued, closed, buried, over, attended
--   LOG       its frames: a Redis Stream; each entry is a batch, its id is epoch-seq of the last one
--   LEASES    sorted set: nonces by when their leases end
--   MEMBERS   hash: nonce -> JSON, of each claim that has not been released
-- All of one session are in one slot of a cluster. Times are in milliseconds.

local SESSION, STREAM, LOG, LEASES, MEMBERS = unpack(KEYS)
local MAX_LEASE = 60 * 1000

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function say(channel, kind, member, more)
  local word = more or {}
  word.kind, word.session, word.stream = kind, member.session, member.stream
  redis.call('PUBLISH', channel, cjson.encode(word))
end

local function say_to(node, kind, member, more)
  say('jarvis:node:' .. node, kind, member, more)
end

-- Say it to all who watch the session.
local function announce(kind, member)
  say(SESSION .. ':words', kind, member)
end

local function member_of(nonce)
  local text = nonce and redis.call('HGET', MEMBERS, nonce)
  return text and cjson.decode(text)
end

local function keep_member(member)
  redis.call('HSET', MEMBERS, member.nonce, cjson.encode(member))
end

local function members()
  local found = {}
  for _, text in ipairs(redis.call('HVALS', MEMBERS)) do
    table.insert(found, cjson.decode(text))
  end
  return found
end

local function waits(member)
  return member.queued and not member.by and not member.closed
end

-- Whether a removal covers this epoch. A span is its first epoch, and the one after its last.
local function is_removed(epoch)
  local spans = redis.call('HGET', SESSION, 'removed')
  for _, span in ipairs(spans and cjson.decode(spans) or {}) do
    if span[1] <= epoch and epoch < span[2] then
      return true
    end
  end
  return false
end

-- When a stream is released its lease goes.
-- A lease that ends before `horizon`, up to which the caller trusts this server's clock, has
-- expired. One that ends too late was set before the clock stepped back.
local function is_expired(nonce, horizon)
  local ends, time = tonumber(redis.call('ZSCORE', LEASES, nonce) or 0), now()
  if ends > time + MAX_LEASE then
    redis.call('ZADD', LEASES, time + MAX_LEASE, nonce)
  end
  return ends < math.min(time, tonumber(horizon))
end

local function keep_alive(ttl)
  for _, key in ipairs({STREAM, LOG, LEASES, MEMBERS}) do
    redis.call('PEXPIRE', key, ttl)
  end
end

local function renew(nonce, lease, ttl)
  redis.call('ZADD', LEASES, now() + lease, nonce)
  keep_alive(ttl)
end

-- Each member as JSON, whether its lease has run out, and whether it was removed.
local function living(horizon)
  local rows = {}
  for _, member in ipairs(members()) do
    member.expired = is_expired(member.nonce, horizon)
    member.removed = is_removed(member.epoch) or nil
    table.insert(rows, cjson.encode(member))
  end
  return rows
end

-- Add a batch to the log. It may begin with frames that are there already: each is counted by its
-- line, back from the last, and who reads passes over them.
local function add(epoch, last, frames)
  redis.call('XADD', LOG, epoch .. '-' .. last, 'frames', frames)
  redis.call('HSET', STREAM, 'last', last)
end

local function end_log(nonce, epoch, last, frames)
  epoch = redis.call('HGET', STREAM, 'epoch') or epoch
  add(epoch, last, frames)
  redis.call('HSET', STREAM, 'epoch', epoch, 'closed', 1)
  if redis.call('HGET', SESSION, 'owner') == nonce then
    redis.call('HDEL', SESSION, 'owner')
  end
  local me = member_of(nonce)
  if me then
    me.closed = true
    keep_member(me)
  end
end

-- Nobody newer is touched; `over` refuses a claim that comes late.
local function release(nonce)
  redis.call('HSET', STREAM, 'over', 1)
  redis.call('ZREM', LEASES, nonce)
  if redis.call('HGET', SESSION, 'owner') == nonce then
    redis.call('HDEL', SESSION, 'owner')
  end
  local me = member_of(nonce)
  if me then
    redis.call('HDEL', MEMBERS, nonce)
    announce('released', me)
    local told = {}
    for _, other in ipairs(members()) do
      if not told[other.node] then
        told[other.node] = true
        say_to(other.node, 'released', me)
      end
    end
  end
end
