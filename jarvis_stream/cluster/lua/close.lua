-- ARGV: nonce, epoch, first, last, frames, ttl. Returns a verdict and the last seq of the log.
local stream = redis.call('HMGET', STREAM, 'last', 'closed', 'buried')
local known = tonumber(stream[1] or 0)
if stream[2] then
  return {stream[3] and 'fenced' or 'good', known}
end
if tonumber(ARGV[3]) > known then
  return {'regressed', known}
end
end_log(ARGV[1], ARGV[2], ARGV[4], ARGV[5])
keep_alive(ARGV[6])
return {'good', tonumber(ARGV[4])}
