"""Floor 6, the door for people: the `eyrie` command, its supervisor, and what it reads of the data directory."""
