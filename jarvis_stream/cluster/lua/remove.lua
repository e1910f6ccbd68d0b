-- ARGV: the session, the first epoch of the span, the epoch after its last, the stream that takes
-- their place, ttl of the session. The session remembers the newest spans: a log lives for less.
local first, before, kept = tonumber(ARGV[2]), tonumber(ARGV[3]), {}
for _, span in ipairs(cjson.decode(redis.call('HGET', SESSION, 'removed') or '[]')) do
  if span[1] <= first and before <= span[2] then
    first, before = span[1], span[2]
  elseif not (first <= span[1] and span[2] <= before) then
    table.insert(kept, span)
  end
end
table.insert(kept, {first, before})
if #kept > 64 then
  table.remove(kept, 1)
end
redis.call('HSET', SESSION, 'removed', cjson.encode(kept))
redis.call('PEXPIRE', SESSION, ARGV[5])
local word = {before = tonumber(ARGV[3])}
if ARGV[2] ~= '0' then
  word.first, word.by = tonumber(ARGV[2]), ARGV[4]
end
say('jarvis:nodes', 'forgotten', {session = ARGV[1]}, word)
