"""Floor 3, the hands: input and output, one technology a file, keeping the promises of `ports.py`."""
