"""Valence: train, compare and serve sentiment and sequence classifiers with Keras on TensorFlow."""

import os

__version__ = "0.1.0"

# TensorFlow reads it when it is loaded, so not in a program that imports TensorFlow first, and by itself takes oneDNN's
# kernels on some processors only. On the others they multiply large matrices twice as fast (docs/log.md).
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
