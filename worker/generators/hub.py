"""The Hugging Face hub: what of it is in the cache of this machine, and pulling more. A
worker that serves never asks the network."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from promptmill import errors, models
from worker.generators import checkpoint

_WANTED = (".json", ".txt", ".model", ".jinja")
LISTS = "promptmill"  # beside the cache's own folders: what each pull wanted
_SPARE = 1 << 30  # bytes left free on the disk after a pull


def go_offline() -> None:
    """From now on the libraries in this process ask no network for anything."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = True


def cached(name: str, revision: str | None) -> Path:
    """The snapshot of ORG/NAME in the hub's cache, its last part the commit. Raises
    `errors.ModelNotFound` with the command that pulls it."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import IncompleteSnapshotError

    spec = f"hf:{name}" + (f"@{revision}" if revision else "")
    cache = Path(constants.HF_HUB_CACHE)
    try:
        return Path(
            snapshot_download(name, revision=revision, cache_dir=cache, local_files_only=True)
        )
    except IncompleteSnapshotError:
        if (pulled := _pulled(cache, name, revision or "main")) is not None:
            return pulled
        told = "is only in part"
    except (OSError, ValueError):
        told = "is not"
    raise errors.ModelNotFound(
        f"{spec} {told} on this machine: run `promptmill models pull {spec}`"
    )


def _pulled(cache: Path, name: str, revision: str) -> Path | None:
    """The snapshot that `pull` has made: all of what it wanted, which is less than all."""
    home = _home(cache, name)
    reference = home / "refs" / revision
    commit = reference.read_text().strip() if reference.is_file() else revision
    listed, folder = home / LISTS / f"{commit}.json", home / "snapshots" / commit
    if not listed.is_file():
        return None
    files = json.loads(listed.read_text())
    return folder if all((folder / file).is_file() for file in files) else None


def _home(cache: Path, name: str) -> Path:
    return cache / f"models--{name.replace('/', '--')}"


def pull(model: str) -> Path:
    """Downloads what promptmill reads of `hf:ORG/NAME[@REVISION]`, and nothing else; the
    snapshot. Raises `errors.Error` that says whether it is gated, missing, too large for
    the disk, or in a format that is refused."""
    from huggingface_hub import HfApi, constants, snapshot_download

    name, revision = models.served_name(model), model.partition("@")[2] or None
    info = _told(lambda: HfApi().model_info(name, revision=revision, files_metadata=True), model)
    sizes = {file.rfilename: int(file.size or 0) for file in info.siblings or ()}
    wanted = wanted_of(list(sizes))
    if not any(file.endswith(".safetensors") for file in wanted):
        if any(file.endswith(".gguf") for file in sizes):
            raise errors.ModelInvalid(f"{model} has {checkpoint.ALONE}")
        raise errors.ModelInvalid(f"{model} has no .safetensors files: other formats are refused")
    cache = Path(constants.HF_HUB_CACHE)
    cache.mkdir(parents=True, exist_ok=True)
    needed, free = sum(sizes[file] for file in wanted), shutil.disk_usage(cache).free
    if needed + _SPARE > free:
        raise errors.TooLarge(
            f"{model} takes {needed / 1e9:.1f} GB, {cache} has {free / 1e9:.1f} GB free: make room "
            "or set HF_HOME to a larger disk"
        )
    options: dict[str, Any] = {"cache_dir": cache, "allow_patterns": wanted, "revision": info.sha}
    folder = Path(_told(lambda: snapshot_download(name, **options), model))
    _point(folder, revision or "main")
    listed = _home(cache, name) / LISTS / f"{folder.name}.json"
    listed.parent.mkdir(exist_ok=True)
    listed.write_text(json.dumps(wanted))
    return folder


def wanted_of(files: Sequence[str]) -> list[str]:
    """Which files of a repository a worker reads: configuration, vocabularies, one variant
    of the weights. Of a pipeline not the copies that lie at the top."""
    pipeline = "model_index.json" in files
    texts = [file for file in files if file.endswith(_WANTED)]
    weights = [file for file in files if file.endswith(".safetensors")]
    if pipeline:
        weights = [file for file in weights if "/" in file]
    plain = [file for file in weights if not _variant(file)]
    return texts + [f for f in weights if f in plain or not _has_plain(f, plain)]


def _variant(file: str) -> bool:
    """Whether the name tells of another precision: model.fp16.safetensors."""
    parts = file.rpartition("/")[2].split(".")
    return len(parts) > 2 and not parts[-2][:1].isdigit()


def _has_plain(file: str, plain: Sequence[str]) -> bool:
    folder = file.rpartition("/")[0]
    return any(other.rpartition("/")[0] == folder for other in plain)


def _point(folder: Path, reference: str) -> None:
    """Has the cache's name `reference` mean this snapshot, as a download of it would."""
    if reference != folder.name:
        path = folder.parent.parent / "refs" / reference
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(folder.name)


def _told(call: Any, model: str) -> Any:
    """Runs `call`; what the hub refuses becomes an error with the remedy."""
    from huggingface_hub import errors as hub_errors

    try:
        return call()
    except hub_errors.GatedRepoError as error:
        raise errors.Forbidden(
            f"{model} is gated: accept its terms on the hub and set HF_TOKEN"
        ) from error
    except hub_errors.RepositoryNotFoundError as error:
        raise errors.ModelNotFound(
            f"the hub has no {model}, or it is private: check the name and HF_TOKEN"
        ) from error
    except hub_errors.RevisionNotFoundError as error:
        raise errors.ModelNotFound(f"the hub has no such revision of {model}") from error
    except hub_errors.HFValidationError as error:
        raise errors.SettingInvalid(f"{model} cannot be a name on the hub: {error}") from error
    except Exception as error:  # of the network: those of the library's HTTP client, too
        told = str(error) or type(error).__name__
        raise errors.Unavailable(f"{model} cannot be pulled: {told}") from error
