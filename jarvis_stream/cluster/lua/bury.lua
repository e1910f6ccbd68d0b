-- ARGV: nonce, epoch, first, last, frames, ttl, is_end, horizon. Returns whether it was buried. With last
-- 0 there are no frames: a start that came to nothing is released, and its log stays empty.
local nonce, first, last = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4])
local stream = redis.call('HMGET', STREAM, 'last', 'closed')
local known = tonumber(stream[1] or 0)
if stream[2] and is_expired(nonce, ARGV[8]) then
  release(nonce)
end
if stream[2] or not is_expired(nonce, ARGV[8]) or first > known then
  return 0
end
if last == 0 and known == 0 then
  release(nonce)
  keep_alive(ARGV[6])
  return 1
end
if last <= known then
  return 0
end
end_log(nonce, ARGV[2], ARGV[4], ARGV[5])
redis.call('HSET', STREAM, 'buried', 1)
release(nonce)
keep_alive(ARGV[6])
return 1
