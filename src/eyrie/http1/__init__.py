"""Floor 3: the one hardened HTTP/1 server and upstream client; httptools is its only dependency."""
