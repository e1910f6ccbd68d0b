-- ARGV: horizon. Returns each member as JSON, with whether it has expired.
return living(ARGV[1])
