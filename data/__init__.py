"""Data in: sources, splits, vocabulary, and the one road from text to batches."""
