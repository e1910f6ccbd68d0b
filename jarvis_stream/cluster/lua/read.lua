-- ARGV: nonce, cursor, about how many bytes, horizon. Returns nothing when nothing is known of the
-- log; else its epoch, its last seq, whether it is closed, whether its node is dead, whether its start
-- was given up before the first frame, whether it was removed, and entries: id, frames.
local cursor, room = tonumber(ARGV[2]), tonumber(ARGV[3])
local stream = redis.call('HMGET', STREAM, 'epoch', 'last', 'closed', 'over')
local epoch, last = stream[1] or '0', tonumber(stream[2] or 0)
if not (stream[1] or stream[2] or stream[4]) then
  return false
end
local expired = not stream[3] and is_expired(ARGV[1], ARGV[4])
local vacated = stream[4] and not stream[3] and last == 0
local removed = stream[1] and is_removed(tonumber(epoch))
local found = {
  epoch, last, stream[3] and 1 or 0, expired and 1 or 0, vacated and 1 or 0, removed and 1 or 0
}
local from, count = '(' .. epoch .. '-' .. ARGV[2], 2 -- few first: they may be long
while cursor < last and room > 0 do
  local entries = redis.call('XRANGE', LOG, from, '+', 'COUNT', count)
  for _, entry in ipairs(entries) do
    table.insert(found, entry[1])
    table.insert(found, entry[2][2])
    from = '(' .. entry[1]
    room = room - #entry[2][2]
    if room <= 0 then
      break
    end
  end
  if #entries < count then
    break
  end
  count = count * 2
end
return found
