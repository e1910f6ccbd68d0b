-- ARGV: lease.
if redis.call('EXISTS', STREAM) == 1 then
  redis.call('HSET', STREAM, 'attended', now() + math.min(tonumber(ARGV[1]), MAX_LEASE))
end
