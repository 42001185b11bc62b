"""`baatcheet settings`."""

from baatcheet.platform.settings import reference


def settings() -> None:
    """Print every setting: its variable, default, meaning and an example (docs/reference/settings.md)."""
    print(reference(), end="")
