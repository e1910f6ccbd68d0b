-- ARGV: nonce, epoch, first, last, frames, ttl. Returns a verdict and the last seq of the log.
local stream = redis.call('HMGET', STREAM, 'last', 'closed', 'buried')
local known, first = tonumber(stream[1] or 0), tonumber(ARGV[3])
if stream[2] then
  return {stream[3] and 'fenced' or 'good', known}
end
if first > known then
  return {'regressed', known}
end
end_log(ARGV[1], ARGV[2], first, ARGV[4], ARGV[5], known)
keep_alive(ARGV[6])
return {'good', tonumber(ARGV[4])}
