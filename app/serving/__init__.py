"""What runs with a SavedModel: loads it, answers TensorFlow Serving's REST API. Knows nothing of training."""
