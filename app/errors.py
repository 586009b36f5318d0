"""What is raised when a request cannot be carried out as it was put."""


class RequestError(ValueError):
    """The request is wrong. The message names the value, the place and what is allowed; exit code 2 or HTTP 400."""
