"""The base of every error that Sayso raises on purpose. Each room draws its own tree below it."""


class SaysoError(Exception):
    """The message says what is wrong and what to do; `code` is stable and machine-readable."""

    code: str = "error"
