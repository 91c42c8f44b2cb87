"""The wind tunnel (floor 5): the decisions of production on a virtual clock, with seeded chance, traffic and faults."""
