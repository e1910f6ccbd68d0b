-- KEYS: the name. ARGV: ttl of a stop that waits. Returns who has the name.
local held = redis.call('GET', KEYS[1])
local owner = held and string.sub(held, 2) or ''
if owner == '' then
  redis.call('SET', KEYS[1], '!', 'PX', ARGV[1])
  return false
end
redis.call('SET', KEYS[1], '!' .. owner, 'KEEPTTL')
local name = cjson.decode(owner)
local word = cjson.encode({kind = 'cancel', session = name.session, stream = name.stream})
redis.call('PUBLISH', 'jarvis:node:' .. name.node, word)
return owner
