-- ARGV: the claim as JSON, on_conflict, lease, ttl, ttl of the session, horizon. Returns the living
-- after `owner`; or `vacated`; or `outrun` and by whom; or `removed`, when a removal covers the
-- ticket; or `busy`, with whom, the last claim, and the place in the queue.
local me, on_conflict, lease, ttl = cjson.decode(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local horizon = ARGV[6]
local session = redis.call('HMGET', SESSION, 'owner', 'claimed')
local claimed = tonumber(session[2] or 0)

if is_removed(me.epoch) then
  return {'removed'}
end

local function supersede(member, rollback)
  member.by, member.rollback = me.stream, rollback
  keep_member(member)
  say_to(member.node, 'superseded', member, {by = me.stream, rollback = rollback})
end

if session[1] ~= me.nonce then
  local owner, mine = member_of(session[1]), member_of(me.nonce)
  local ended = redis.call('HMGET', STREAM, 'over', 'closed')
  if ended[1] and not ended[2] then
    return {'vacated'}
  end
  if ended[2] or me.epoch <= claimed then
    return {'outrun', mine and mine.by or owner and owner.stream or ''}
  end

  local queue, before, first = {}, 0, nil
  for _, other in ipairs(members()) do
    if waits(other) and other.nonce ~= me.nonce then
      table.insert(queue, other)
      local counts = on_conflict ~= 'enqueue' or other.epoch < me.epoch
      if counts and not is_expired(other.nonce, horizon) then
        before = before + 1
        if not first or other.epoch < first.epoch then
          first = other
        end
      end
    end
  end

  local holder = owner and not is_expired(owner.nonce, horizon) and owner or first
  if holder and (on_conflict == 'enqueue' or on_conflict == 'reject') then
    local position = 0
    if on_conflict == 'enqueue' then
      position = before + 1
      redis.call('HSET', STREAM, 'epoch', me.epoch, 'queued', 1)
      if not mine then
        me.queued = true
        keep_member(me)
        announce('claimed', me)
      end
      renew(me.nonce, lease, ttl)
    end
    return {'busy', holder.stream, claimed, position}
  end

  if owner then
    supersede(owner, on_conflict == 'rollback')
  end
  for _, other in ipairs(queue) do
    if other.epoch < me.epoch then
      supersede(other, false)
    end
  end
  redis.call('HSET', SESSION, 'owner', me.nonce, 'claimed', me.epoch)
  redis.call('PEXPIRE', SESSION, ARGV[5])
  redis.call('HSET', STREAM, 'epoch', me.epoch)
  redis.call('HDEL', STREAM, 'queued')
  keep_member(me)
  announce('claimed', me)
end
renew(me.nonce, lease, ttl)
redis.call('ZREMRANGEBYSCORE', LEASES, '-inf', now() - ttl) -- of who died before it claimed
return {'owner', unpack(living(horizon))}
