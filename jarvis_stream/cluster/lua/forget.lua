-- ARGV: the session, and the epoch before which it is forgotten.
local before = tonumber(ARGV[2])
if redis.call('EXISTS', SESSION) == 1 then
  local forgotten = tonumber(redis.call('HGET', SESSION, 'forgotten') or 0)
  redis.call('HSET', SESSION, 'forgotten', math.max(forgotten, before - 1))
end
say('jarvis:nodes', 'forgotten', {session = ARGV[1]}, {before = before})
