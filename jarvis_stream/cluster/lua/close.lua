-- ARGV: nonce, epoch, first, last, frames, ttl, 1 when the last frame is the terminal one. Returns a
-- verdict and the last seq of the log.
local last = tonumber(ARGV[4])
local stream = redis.call('HMGET', STREAM, 'last', 'closed', 'buried', 'epoch', 'over')
local known = tonumber(stream[1] or 0)
if stream[2] then
  return {stream[3] and 'fenced' or 'good', known}
end
if stream[5] then -- it was given up, and another start may have its name
  return {'fenced', known}
end
if tonumber(ARGV[3]) > known then
  return {'regressed', known}
end
if ARGV[7] == '1' then
  end_log(ARGV[1], ARGV[2], ARGV[4], ARGV[5])
  known = last
elseif last > known then
  local epoch = stream[4] or ARGV[2]
  add(epoch, ARGV[4], ARGV[5])
  redis.call('HSET', STREAM, 'epoch', epoch)
  known = last
end
keep_alive(ARGV[6])
return {'good', known}
