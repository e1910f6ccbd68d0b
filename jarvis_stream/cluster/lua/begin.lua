-- ARGV: nonce, lease, ttl. A name is about to be taken for this start: its lease begins.
redis.call('HSETNX', STREAM, 'last', 0)
if not redis.call('HGET', STREAM, 'over') then
  renew(ARGV[1], ARGV[2], ARGV[3])
end
