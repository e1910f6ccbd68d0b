-- KEYS: the name. Its value is a mark, `=` or (once it was stopped) `!`, and then who has it, as
-- JSON; without that it is a stop that waits for its stream. ARGV: who takes it, ttl. Returns the
-- mark when it is theirs now, else who has it.
local held = redis.call('GET', KEYS[1]) or '='
local mark, owner = string.sub(held, 1, 1), string.sub(held, 2)
if owner ~= '' and owner ~= ARGV[1] then
  return owner
end
redis.call('SET', KEYS[1], mark .. ARGV[1], 'PX', ARGV[2])
return mark
