"""What is raised when the data a user named cannot be used as it is."""


class DataError(ValueError):
    """The data is wrong. The message names the value, the place (file, row, column) and what is allowed."""
