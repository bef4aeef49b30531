"""How commands speak: JSON for programs, aligned text for people."""

from __future__ import annotations

import json
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

as_json = click.option("--json", "json_", is_flag=True, help="Print JSON, a line per thing.")


def print_json(data: Any) -> None:
    click.echo(json.dumps(data, ensure_ascii=False))


GAP = 2  # spaces between two columns
LEAST = 6  # characters to which a column shrinks before it is left out


def print_table(
    heads: Sequence[str], rows: Iterable[Sequence[object]], *, giving: Sequence[str] = ()
) -> None:
    """Columns as wide as their widest cell; numbers to the right. giving: columns that give
    way, in this order, where a terminal is too narrow; elsewhere nothing is left out."""
    lines = [list(heads), *([_cell(cell) for cell in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    if sys.stdout.isatty():
        _narrow(widths, [heads.index(name) for name in giving], columns())
    for number, line in enumerate(lines):
        cells = [
            cell.rjust(width) if number and _is_number(cell) else shorten(cell, width).ljust(width)
            for cell, width in zip(line, widths, strict=True)
            if width
        ]
        click.echo((" " * GAP).join(cells).rstrip())


def columns() -> int:
    """Characters in a line of the terminal."""
    return shutil.get_terminal_size().columns


def _narrow(widths: list[int], giving: Iterable[int], room: int) -> None:
    for i in giving:
        over = sum(widths) + GAP * (sum(map(bool, widths)) - 1) - room
        if over > 0:
            widths[i] = widths[i] - over if widths[i] - over >= LEAST else 0


def print_fields(fields: Mapping[str, object]) -> None:
    """`name  value` lines; None and empty values are left out. On a terminal a long value
    goes on below itself."""
    shown = {name: _cell(value) for name, value in fields.items() if value not in (None, "")}
    width = max(map(len, shown), default=0)
    room = max(20, columns() - width - GAP) if sys.stdout.isatty() else None
    for name, value in shown.items():
        first, *rest = [value] if room is None else textwrap.wrap(value, room) or [""]
        click.echo(f"{name.ljust(width)}  {first}")
        for line in rest:
            click.echo(f"{' ' * width}  {line}")


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _is_number(cell: str) -> bool:
    return cell.replace(",", "").replace(".", "", 1).isdigit()


def duration(seconds: float | None) -> str:
    """`3.2 s`, `4 min 10 s`, `5 h 2 min`; `-` when unknown."""
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def count(many: int, noun: str) -> str:
    """`1 image`, `2 images`."""
    return f"{many:,} {noun}{'' if many == 1 else 's'}"


def size(count: float) -> str:
    """`812 B`, `4.2 MB`: powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def moment(seconds: float | None) -> str:
    """Local date and time of a Unix time."""
    if seconds is None:
        return "-"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def age(seconds: float | None) -> str:
    """How long ago a Unix time was, in one unit: `40 s`, `12 min`, `3 h`, `5 d`."""
    if seconds is None:
        return "-"
    past = max(0.0, time.time() - seconds)
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if past >= length:
            return f"{past // length:.0f} {unit}"
    return f"{int(past)} s"


def as_options(text: str) -> str:
    """The API's words in those of the command line."""
    return re.sub(r"\bmap=(\w+)=COLUMN", r"--map \1=COLUMN", text)


def shorten(text: str, width: int) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"
