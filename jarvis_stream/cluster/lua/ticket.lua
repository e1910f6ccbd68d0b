-- ARGV: floor, ttl. Returns the next epoch.
local session = redis.call('HMGET', SESSION, 'ticket', 'claimed')
local ticket = math.max(
  tonumber(session[1] or 0) + 1, tonumber(session[2] or 0) + 1, tonumber(ARGV[1]) + 1, now()
)
redis.call('HSET', SESSION, 'ticket', ticket)
redis.call('PEXPIRE', SESSION, ARGV[2])
return ticket
