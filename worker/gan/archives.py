"""Published packages of pictures and names: fetched by name and version with the ordinary client,
read from their archives, pictures composited on white. Knows no emoji."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from promptmill import errors
from worker.gan.inputs import SIDE

CODED = re.compile(r"[0-9a-fA-F]{2,6}(?:-[0-9a-fA-F]{2,6})*\.(?:png|svg)")  # a file's name
_VARIATION = 0xFE0F


def fetch(package: str, folder: Path) -> Path:
    """Downloads a package's archive with the ordinary client, once, and returns its path."""
    name, _, version = package.rpartition("@")
    archive = folder / f"{name.strip('@').replace('/', '-')}-{version}.tgz"
    if not archive.exists():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            subprocess.run(["npm", "pack", package], cwd=folder, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as problem:
            raise errors.Error(f"cannot fetch {package}: npm pack failed ({problem})") from problem
    return archive


def read(archive: Path, member: str) -> bytes:
    """One file of a package archive."""
    with tarfile.open(archive) as bundle:
        file = bundle.extractfile(f"package/{member}")
        if file is None:
            raise errors.Error(f"{archive} has no file {member}: delete it and build again")
        return file.read()


def sprite(data: bytes, side: int = SIDE) -> NDArray[np.uint8]:
    """A picture file as uint8 [3, side, side], composited on white."""
    with Image.open(io.BytesIO(data)) as file:
        picture = file.convert("RGBA")
    if picture.size != (side, side):
        picture = picture.resize((side, side), Image.Resampling.LANCZOS)
    white = Image.new("RGBA", picture.size, "white")
    flat = Image.alpha_composite(white, picture).convert("RGB")
    return np.ascontiguousarray(np.asarray(flat, dtype=np.uint8).transpose(2, 0, 1))


def points(code: str) -> tuple[int, ...]:
    """Code points of a name like "1F1EB-1F1F7", without variation selectors, which
    packages add or leave out as they like."""
    return tuple(p for p in (int(part, 16) for part in code.split("-")) if p != _VARIATION)


def sprites(archive: Path, folder: str) -> dict[tuple[int, ...], NDArray[np.uint8]]:
    """The pictures of one folder of a package, PNG or SVG, by code points."""
    found = {}
    with tarfile.open(archive) as bundle:
        for member in bundle:
            path = Path(member.name)
            if str(path.parent) != f"package/{folder}" or not CODED.fullmatch(path.name):
                continue
            file = bundle.extractfile(member)
            if file is not None:
                data = file.read()
                png = drawn(data) if path.suffix == ".svg" else data
                found[points(path.stem)] = sprite(png)
    return found


def drawn(svg: bytes, side: int = SIDE) -> bytes:
    """An SVG file as a PNG of that many pixels each way."""
    import resvg_py

    return bytes(resvg_py.svg_to_bytes(svg_string=svg.decode(), width=side, height=side))
