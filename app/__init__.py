"""Valence: train, compare and serve sentiment and sequence classifiers with Keras on TensorFlow."""

import os

__version__ = "0.1.0"

# TensorFlow reads it when it is loaded, and by itself takes oneDNN's kernels on some processors only. Where it does
# not, they multiply large matrices twice as fast as Eigen's (docs/benchmarks.md); where it does, nothing changes.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
