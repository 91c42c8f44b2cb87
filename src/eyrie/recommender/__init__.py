"""Inference recommendations: candidates deployed, loaded, measured and removed, by a client of the public API."""
