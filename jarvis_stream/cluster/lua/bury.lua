-- ARGV: nonce, epoch, first, last, frames, ttl. Returns whether it was buried.
local nonce, first, last = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4])
local stream = redis.call('HMGET', STREAM, 'last', 'closed')
local known = tonumber(stream[1] or 0)
if stream[2] and is_expired(nonce) then
  release(nonce)
end
if stream[2] or not is_expired(nonce) or first > known or last <= known then
  return 0
end
end_log(nonce, ARGV[2], ARGV[4], ARGV[5])
redis.call('HSET', STREAM, 'buried', 1)
release(nonce)
keep_alive(ARGV[6])
return 1
