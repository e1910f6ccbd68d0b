-- ARGV: an epoch. Returns whether a removal covers it.
return is_removed(tonumber(ARGV[1])) and 1 or 0
