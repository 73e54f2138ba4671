"""Each test of this room gets a store: see `tests/support/store_fixtures.py`."""

from store_fixtures import index, opened, path, pytest_generate_tests, rounding, server, store

__all__ = ["index", "opened", "path", "pytest_generate_tests", "rounding", "server", "store"]
