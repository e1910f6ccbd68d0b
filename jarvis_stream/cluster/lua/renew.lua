-- ARGV: nonce, epoch, lease, ttl. Returns a verdict, whether it is read elsewhere, by whom it was
-- superseded, and whether its turn is to leave the history.
local nonce, epoch = ARGV[1], tonumber(ARGV[2])
local stream = redis.call('HMGET', STREAM, 'over', 'attended')
local me = member_of(nonce)
local verdict = 'fenced'
if not stream[1] then
  if me or epoch == 0 then
    renew(nonce, ARGV[3], ARGV[4])
    if not (me and me.by) then
      verdict = 'good'
    end
  elseif tonumber(redis.call('HGET', SESSION, 'claimed') or 0) < epoch then
    verdict = 'regressed'
  end
end
local attended = tonumber(stream[2] or 0) > now()
return {verdict, attended and 1 or 0, me and me.by or '', me and me.rollback and 1 or 0}
