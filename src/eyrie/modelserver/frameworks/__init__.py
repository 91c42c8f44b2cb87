"""What can be served, a framework a file, all behind the two protocols of `interface`."""
