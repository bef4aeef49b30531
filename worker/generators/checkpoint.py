"""A checkpoint in a folder or in the hub's cache on this machine: where it is, what kind it
is, what decides its bytes. Safetensors only, no code of the checkpoint's own, no network:
`hub.pull` is the one thing that downloads."""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptmill import errors, models

DIFFUSERS, TRANSFORMERS = "diffusers", "transformers"
WEIGHTS = (".safetensors", ".gguf")
PICKLED = (".bin", ".ckpt", ".pt", ".pth")
TEXTS = (".json", ".txt", ".model", ".jinja")  # configuration and vocabularies
ALONE = (
    "a .gguf file and no .safetensors: such a file is the transformer of a pipeline alone. Put it "
    "into the folder of that pipeline, beside its model_index.json, text encoders, VAE, tokenizers "
    "and scheduler, and set PROMPTMILL_QUANTIZATION=gguf"
)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LIBRARIES = ("diffusers", "transformers")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """kind: the library that loads it. revision: the commit on the hub; empty for a folder."""

    name: str
    folder: Path
    kind: str
    revision: str = ""

    def files(self) -> list[Path]:
        """What the libraries may read of it, in a fixed order."""
        found = (path for path in _below(self.folder) if path.suffix in (*WEIGHTS, *TEXTS))
        return sorted(path for path in found if path.is_file())

    def config(self, *parts: str) -> dict[str, Any]:
        """A JSON file of the checkpoint; empty when there is none. Raises `errors.ModelInvalid`
        naming a damaged one."""
        return read_json(self.folder.joinpath(*parts))

    def digest(self) -> str:
        """SHA-256 over names and contents. A file in the hub's cache is named by its own
        hash and is not read again."""
        whole = hashlib.sha256()
        for path in self.files():
            whole.update(f"{path.relative_to(self.folder)}\0{_sha256(path)}\n".encode())
        return whole.hexdigest()

    def parameters(self, *parts: str) -> int:
        """Numbers in the weights below `parts`, from the heads of the files."""
        below = self.folder.joinpath(*parts)
        paths = [path for path in self.files() if path.suffix == ".safetensors"]
        return sum(
            _numbers(shape)
            for path in paths
            if path.is_relative_to(below)
            for shape in shapes(path).values()
        )


def find(model: str) -> Checkpoint:
    """The checkpoint that PROMPTMILL_MODEL names. Raises `errors.ModelNotFound` when it is
    not on this machine and `errors.Error` for one that cannot be served, with the reason."""
    name = models.served_name(model)
    if models.is_folder(model):
        folder, revision = Path(model).expanduser().resolve(), ""
        if not folder.is_dir():
            raise errors.ModelNotFound(f"PROMPTMILL_MODEL={model!r}: there is no such folder")
    else:
        folder = _cached(model)
        revision = folder.name
    return check(Checkpoint(name, folder, kind_of(folder), revision))


def kind_of(folder: Path) -> str:
    """Raises `errors.ModelInvalid` for a folder that is no checkpoint."""
    if (folder / "model_index.json").is_file():
        return DIFFUSERS
    if (folder / "config.json").is_file():
        return TRANSFORMERS
    if any(folder.rglob("*.gguf")):
        raise errors.ModelInvalid(f"{folder} has {ALONE}")
    raise errors.ModelInvalid(
        f"{folder} is no checkpoint: it has neither model_index.json (diffusers) nor "
        "config.json (transformers)"
    )


def check(found: Checkpoint) -> Checkpoint:
    """Refuses weights that could run code, and code itself."""
    for path in found.files():
        if path.name.endswith("config.json") and _names_code(read_json(path)):
            raise errors.ModelInvalid(
                f"{path} asks for code of the checkpoint's own (auto_map): promptmill never runs it"
            )
    for component, entry in found.config("model_index.json").items():
        if not isinstance(entry, list):
            continue
        if _own_code(found.folder, component, entry):
            raise errors.ModelInvalid(
                f"{component} of {found.name} needs {entry[0]}.py of the checkpoint's own: "
                "promptmill never runs it"
            )
        if component != "_class_name":
            _require_part(found.folder / component, entry)
    kinds = {path.suffix for path in found.files()}
    if ".safetensors" not in kinds:
        if ".gguf" in kinds:
            raise errors.ModelInvalid(f"{found.folder} has {ALONE}")
        raise errors.ModelInvalid(
            f"{found.folder} has no .safetensors file: other formats can run code and are refused"
        )
    return found


def read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        held = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise errors.ModelInvalid(f"{path} is damaged, fetch it again: {error}") from error
    if not isinstance(held, dict):
        raise errors.ModelInvalid(f"{path} is damaged, fetch it again: it holds no object")
    return held


def shapes(path: Path) -> dict[str, list[int]]:
    """Tensor name → shape, from the head of a safetensors file. Raises `errors.ModelInvalid` for a
    damaged one."""
    try:
        with path.open("rb") as file:
            [length] = struct.unpack("<Q", file.read(8))
            if length > path.stat().st_size:
                raise ValueError("its head is longer than the file")
            head = json.loads(file.read(length))
        head.pop("__metadata__", None)
        ends = [entry["data_offsets"][1] for entry in head.values()]
        if 8 + length + max(ends, default=0) != path.stat().st_size:
            raise ValueError("it is longer or shorter than its head says")
        return {name: entry["shape"] for name, entry in head.items()}
    except (struct.error, ValueError, LookupError, AttributeError, TypeError) as error:
        raise errors.ModelInvalid(f"{path} is damaged, fetch it again: {error}") from error


def linear_share(folder: Path) -> float:
    """The part of a component's numbers that stands in matrices: what quantizing linear
    layers can make smaller."""
    paths = list(folder.glob("*.safetensors"))
    found = [shape for path in paths for shape in shapes(path).values()]
    total = sum(map(_numbers, found))
    return sum(_numbers(shape) for shape in found if len(shape) == 2) / total if total else 0.0


def _names_code(held: Any) -> bool:
    """Whether a configuration names classes of its own at any depth."""
    if isinstance(held, dict):
        return isinstance(held.get("auto_map"), dict) or any(map(_names_code, held.values()))
    return isinstance(held, list) and any(map(_names_code, held))


def _below(folder: Path) -> Iterator[Path]:
    """The files, also behind links to folders, but for a link to a folder that it lies in."""
    for place, folders, files in os.walk(folder, followlinks=True):
        here = Path(place)
        above = {path.resolve() for path in (here, *here.parents)}
        folders[:] = [name for name in folders if (here / name).resolve() not in above]
        yield from (here / name for name in files)


def _own_code(folder: Path, component: str, entry: list[Any]) -> bool:
    library = str(entry[0])
    if library in _LIBRARIES or entry[0] is None:
        return False
    return (folder / component / f"{library}.py").exists() or (folder / f"{library}.py").exists()


def _require_part(folder: Path, entry: list[Any]) -> None:
    """Of a pipeline's parts, each is there, and none in a format that can run code alone."""
    if not any(entry):
        return
    if not folder.is_dir():
        raise errors.ModelInvalid(
            f"{folder.parent} is incomplete, fetch it again: it lacks {folder.name}/"
        )
    names = {path.suffix: path.name for path in folder.iterdir()}
    if not names.keys() & set(WEIGHTS) and (pickled := names.keys() & set(PICKLED)):
        raise errors.ModelInvalid(
            f"{folder} has {names[min(pickled)]} and no .safetensors file: other formats can run "
            "code and are refused"
        )


def _numbers(shape: list[int]) -> int:
    total = 1
    for side in shape:
        total *= side
    return total


def _cached(model: str) -> Path:
    from worker.generators import hub

    name = models.served_name(model)
    revision = model.partition("@")[2] or None
    return hub.cached(name, revision)


def _sha256(path: Path) -> str:
    real = Path(os.path.realpath(path))
    if path.is_symlink() and _SHA256.fullmatch(real.name):
        return real.name
    whole = hashlib.sha256()
    with path.open("rb") as file:
        for part in _parts(file):
            whole.update(part)
    return whole.hexdigest()


def _parts(file: Any) -> Iterator[bytes]:
    while part := file.read(1 << 22):
        yield part
