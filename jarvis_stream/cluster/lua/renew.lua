-- ARGV: nonce, epoch, lease, ttl, horizon. Returns a verdict, whether it is read elsewhere, by whom
-- it was superseded, whether its turn is to leave the history for that, and whether it was removed.
local nonce, epoch = ARGV[1], tonumber(ARGV[2])
local stream = redis.call('HMGET', STREAM, 'over', 'attended')
local me = member_of(nonce)
local verdict, by = 'fenced', me and me.by or ''
if not stream[1] then
  if me or epoch == 0 then
    renew(nonce, ARGV[3], ARGV[4])
    if not (me and me.by) then
      verdict = 'good'
    end
  else
    local session = redis.call('HMGET', SESSION, 'claimed', 'owner')
    if tonumber(session[1] or 0) < epoch then
      verdict = 'regressed'
    else -- this server has lost the claim, and knows a newer one
      local owner = member_of(session[2])
      by = owner and owner.stream or ''
    end
  end
end
local attended, time = tonumber(stream[2] or 0), now()
if attended > time + MAX_LEASE then -- set before the clock stepped back
  redis.call('HSET', STREAM, 'attended', time + MAX_LEASE)
end
attended = attended > math.min(time, tonumber(ARGV[5]))
local removed = epoch > 0 and is_removed(epoch)
return {
  verdict, attended and 1 or 0, by, me and me.rollback and 1 or 0, removed and 1 or 0
}
