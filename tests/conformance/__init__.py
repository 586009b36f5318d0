"""TensorFlow Serving's REST contract as data, asked of a running server: see README.md here."""
