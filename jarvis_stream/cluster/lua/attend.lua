-- ARGV: lease.
if redis.call('EXISTS', STREAM) == 1 then
  redis.call('HSET', STREAM, 'attended', now() + tonumber(ARGV[1]))
end
