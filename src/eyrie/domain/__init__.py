"""Floor 0, the nouns: frozen dataclasses, enums and transition tables. Nothing here performs I/O, reads a clock or draws chance."""
