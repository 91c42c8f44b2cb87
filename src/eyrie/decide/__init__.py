"""Floor 1, the verbs: pure functions from plain data to plain data; time and chance are arguments."""
