-- KEYS: the name. Forget a stop that waits for its stream.
if redis.call('GET', KEYS[1]) == '!' then
  redis.call('DEL', KEYS[1])
end
