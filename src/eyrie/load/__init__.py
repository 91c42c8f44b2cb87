"""The load test: requests by the clock or by users, from several processes, and what came of them."""
