"""What a loaded checkpoint offers: the sizes around the area it was made for. Pure."""

from __future__ import annotations

RATIOS = ((1, 1), (4, 3), (3, 4), (3, 2), (2, 3), (16, 9), (9, 16))


def sizes(side: int, multiple: int) -> tuple[tuple[int, int], ...]:
    """(width, height) choices for a model made for `side` x `side` pixels: the usual ratios
    at about the same area, and the square of half the side, all multiples of `multiple`."""
    multiple = 64 if side >= 512 and 64 % multiple == 0 else multiple
    found = [_of_ratio(side * side, *ratio, multiple) for ratio in RATIOS]
    half = _near(side / 2, multiple)
    return tuple(dict.fromkeys([*found, (half, half)]))


def _of_ratio(area: int, wide: int, high: int, multiple: int) -> tuple[int, int]:
    unit = (area / (wide * high)) ** 0.5
    return _near(wide * unit, multiple), _near(high * unit, multiple)


def _near(length: float, multiple: int) -> int:
    return max(multiple, round(length / multiple) * multiple)
