-- ARGV: nonce, ttl.
release(ARGV[1])
keep_alive(ARGV[2])
