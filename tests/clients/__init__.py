"""Clients of the Open Inference Protocol that are not ours, each in an environment of its own."""
