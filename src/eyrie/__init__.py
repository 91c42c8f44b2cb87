"""Eyrie: a machine-learning production environment that speaks the Amazon SageMaker API and runs on your own machines."""

__version__ = "0.1.0"
