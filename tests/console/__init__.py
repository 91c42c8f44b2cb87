"""What the console is tested and pictured with."""
