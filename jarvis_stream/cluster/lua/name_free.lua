-- KEYS: the name. ARGV: who gives it back, ttl of a stop that waits.
local held = redis.call('GET', KEYS[1]) or ''
if string.sub(held, 2) == ARGV[1] then
  if string.sub(held, 1, 1) == '!' then
    redis.call('SET', KEYS[1], '!', 'PX', ARGV[2])
  else
    redis.call('DEL', KEYS[1])
  end
end
