"""Floor 0, the nouns: frozen dataclasses, enums, transition tables. No I/O, no clock, no chance."""
