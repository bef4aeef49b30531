"""Signed manifests at the reader's side: brought from the farm, and checked against a key and
a folder of pictures without one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptmill import errors, manifest

if TYPE_CHECKING:
    from promptmill.client.job import Job

EXTENSIONS = {"png": "png", "webp": "webp", "jpeg": "jpg"}
_TOLD = 100  # images that a report names


@dataclass(frozen=True, slots=True)
class Report:
    """A manifest that its key signed, and the pictures of a folder beside it. missing,
    damaged: indexes of the first hundred; found: those whose bytes are right."""

    manifest: manifest.Checked
    found: int = 0
    missing_count: int = 0
    damaged_count: int = 0
    missing: tuple[int, ...] = ()
    damaged: tuple[int, ...] = ()

    @property
    def complete(self) -> bool:
        """Every picture of the manifest is there and is what it was."""
        return self.missing_count == self.damaged_count == 0


def save(job: Job, path: Path, *, prompts: bool) -> Path:
    """Raises `errors.Unavailable` when the farm breaks off, `OSError`."""
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        for piece in job.stream("manifest", params={"prompts": prompts}):
            file.write(piece)
    part.replace(path)
    return path


def check(
    path: str | Path,
    folder: str | Path | None = None,
    *,
    key: str | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> Report:
    """Checks a manifest, and the pictures of `folder` (as `download` lays them out, or under
    any names) against it. Needs no farm. key: the public key that must have signed it (PEM,
    or base64); without it the manifest's own. progress: told the images looked at. Raises
    `errors.BadRow` when it was changed, `errors.BadRequest`, `OSError`."""
    wanted = None if key is None else manifest.public_key(key)
    place = None if folder is None else _Folder(Path(folder))
    with Path(path).open("rb") as lines:
        reading = manifest.Reading(lines, key=wanted)
        for count, image in enumerate(reading.images(), start=1):
            if place is not None:
                place.look(image, str(reading.header.get("format")))
            progress(count)
    if reading.checked is None:
        raise errors.BadRow("the manifest is cut short: its last line is missing")
    return Report(reading.checked) if place is None else place.report(reading.checked)


class _Folder:
    """Pictures by their names first; what is not there under its own name is looked for
    by its bytes at the end."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise errors.BadRequest(f"{root} is no folder")
        self._root = root
        self._named = root / "images" if (root / "images").is_dir() else root
        self._found = 0
        self._absent: dict[int, str] = {}
        self._damaged: dict[int, str] = {}

    def look(self, image: Mapping[str, Any], format: str) -> None:
        index, sha256 = int(image["index"]), str(image["sha256"])
        path = self._named / f"{index:09d}.{EXTENSIONS.get(format, format)}"
        try:
            right = hash_of(path) == sha256
        except FileNotFoundError:
            self._absent[index] = sha256
            return
        self._found += right
        if not right:
            self._damaged[index] = sha256

    def report(self, checked: manifest.Checked) -> Report:
        there = self._elsewhere()
        missing = [index for index, sha256 in self._absent.items() if sha256 not in there]
        return Report(
            manifest=checked,
            found=self._found + len(self._absent) - len(missing),
            missing_count=len(missing),
            damaged_count=len(self._damaged),
            missing=tuple(missing[:_TOLD]),
            damaged=tuple(list(self._damaged)[:_TOLD]),
        )

    def _elsewhere(self) -> set[str]:
        """The hashes of all pictures of the folder, if any is looked for."""
        if not self._absent:
            return set()
        known = {f".{extension}" for extension in EXTENSIONS.values()} | {".jpeg"}
        files = (path for path in self._root.rglob("*") if path.suffix.lower() in known)
        return {hash_of(path) for path in files if path.is_file()}


def hash_of(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
