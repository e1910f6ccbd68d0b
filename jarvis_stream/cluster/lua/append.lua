-- ARGV: nonce, epoch, first, last, frames, ttl. Returns a verdict and the last seq of the log.
local nonce, epoch, first, last = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local session = redis.call('HMGET', SESSION, 'owner', 'claimed')
local stream = redis.call('HMGET', STREAM, 'last', 'closed', 'over', 'queued')
local known = tonumber(stream[1] or 0)
local is_older = tonumber(session[2] or 0) < tonumber(epoch)
if session[1] ~= nonce and not (stream[4] and is_older and not stream[2] and not stream[3]) then
  local forgotten = is_older and not stream[2] and not stream[3]
  return {forgotten and 'regressed' or 'fenced', known}
end
if first > known then
  return {'regressed', known}
end
if last > known then
  add(epoch, ARGV[4], ARGV[5])
  if known == 0 then
    redis.call('PEXPIRE', LOG, ARGV[6])
  end
  known = last
end
return {'good', known}
