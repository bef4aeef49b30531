"""The stacks of the end-to-end stories, here too."""

from tests.e2e.conftest import embedded, fleet, stack

__all__ = ["embedded", "fleet", "stack"]
