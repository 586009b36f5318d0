"""The HTTP side of the embedded server: the REST API, what stands in front of it, and the page."""
