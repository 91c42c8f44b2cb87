"""Eyrie: a machine-learning production environment that speaks the Amazon SageMaker API, on your own machines."""

__version__ = "0.1.0"
