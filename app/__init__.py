"""Valence: train, compare and serve sentiment and sequence classifiers with Keras on TensorFlow."""

__version__ = "0.1.0"
