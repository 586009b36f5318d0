"""A listener for `app.training.prepare` in scripts that have nothing to tell while it works."""


class Silent:
    """Nobody needs to be told what takes a while here."""

    def doing(self, what: str) -> None:
        """Say nothing."""

    def downloaded(self, done: int, total: int | None) -> None:
        """Say nothing."""
