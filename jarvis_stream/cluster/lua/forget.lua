-- ARGV: the session. Whatever comes later has a higher epoch.
local session = redis.call('HMGET', SESSION, 'ticket', 'claimed')
local newest = math.max(tonumber(session[1] or 0), tonumber(session[2] or 0))
if newest > 0 then
  redis.call('HSET', SESSION, 'forgotten', newest)
end
say('jarvis:nodes', 'forgotten', {session = ARGV[1]})
