-- KEYS: the name. ARGV: who gives it back.
if string.sub(redis.call('GET', KEYS[1]) or '', 2) == ARGV[1] then
  redis.call('DEL', KEYS[1])
end
