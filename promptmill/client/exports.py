"""A job as a dataset in a folder: has the farm make it, and brings its shards as they are
sealed. Every file appears whole or not at all, and the statistics of a shard after the rest
of it: a shard that has them is whole. Goes on where an earlier call stopped, by sha256."""

from __future__ import annotations

import hashlib
import itertools
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from promptmill import errors
from promptmill.client.manifests import hash_of
from promptmill.client.transport import Transport

if TYPE_CHECKING:
    from promptmill.client.job import Job

PAGE: Final = 100
TRIES: Final = 5  # of one file
PAUSE: Final = 2.0  # seconds between two looks at an export that is being built
SUMS: Final = ".sha256"  # beside unpacked pictures: what `sha256sum -c` takes
FORMATS: Final = ("webdataset", "imagefolder", "parquet")
OWNER: Final = ".export"  # in a folder: the id of the export that it holds
_READ: Final = ("data/*.tar", "data/*.parquet", "data/[!.]*/")  # what loaders take for shards


@dataclass(frozen=True, slots=True)
class Exported:
    """What is in the folder. fetched: bytes brought by this call; finished: it is all there."""

    id: str
    folder: Path
    format: str
    images: int
    failed: int
    shards: int
    bytes: int
    fetched: int
    finished: bool


class Export:
    """An export of a farm, as it was when last asked about: `refresh` asks again."""

    def __init__(self, transport: Transport, data: Mapping[str, Any]) -> None:
        self._transport = transport
        self.data: Mapping[str, Any] = data

    def __repr__(self) -> str:
        return f"<Export {self.id} {self.format} {self.state} {self.data['sealed']} shards>"

    @property
    def id(self) -> str:
        return str(self.data["id"])

    @property
    def format(self) -> str:
        return str(self.data["format"])

    @property
    def state(self) -> str:
        return str(self.data["state"])

    @property
    def path(self) -> str:
        return f"/v1/exports/{self.id}"

    def refresh(self) -> Export:
        self.data = self._transport.get(self.path)
        return self

    def shards(self, *, after: int | None = None) -> Iterator[Mapping[str, Any]]:
        """The sealed shards by number, from behind the shard `after`."""
        params: dict[str, str | int] = {"limit": PAGE}
        params |= {} if after is None else {"after": after}
        return self._transport.pages(f"{self.path}/shards", params=params)

    def card(self) -> Mapping[str, Any] | None:
        """README.md and what belongs to it, once the export is completed."""
        found = self._transport.get(f"{self.path}/shards", params={"cards": True})["data"]
        return found[0] if found else None

    def delete(self) -> None:
        """Deletes the export with its files on the farm."""
        self._transport.call("DELETE", self.path)

    def download(
        self,
        folder: str | Path,
        *,
        follow: bool = True,
        progress: Callable[[Exported], None] = lambda now: None,
    ) -> Exported:
        """Brings the files into `folder`. follow: waits for those that are being made. Raises
        `errors.Error` when the export failed, `OSError`."""
        return _Download(self, Path(folder), progress).run(follow=follow)

    def fetch(self, link: str) -> Iterator[bytes]:
        """What lies behind the link of a file, here or in the object store, as it comes."""
        with self._transport.stream(link) as response:
            yield from response.iter_bytes()


class _Download:
    def __init__(self, export: Export, folder: Path, progress: Callable[[Exported], None]) -> None:
        self._export, self._folder, self._progress = export, folder, progress
        self._brought: set[str] = set()  # shards are sealed in any order
        self._images = self._failed = self._shards = self._bytes = self._fetched = 0

    def run(self, *, follow: bool) -> Exported:
        """Raises `errors.Conflict` where the folder holds another export: both would be read."""
        while True:
            self._export.refresh()
            state = self._export.state  # before the shards: what was sealed by then is listed
            if state == "failed":
                raise errors.Conflict(f"export {self._export.id}: {self._export.data['error']}")
            self._own()
            for shard in self._export.shards():
                if str(shard["id"]) in self._brought:
                    continue
                self._bring(shard)
                self._brought.add(str(shard["id"]))
                self._shards += 1
                self._images += int(shard["images"])
                self._failed += int(shard["failed"])
                self._progress(self._state(finished=False))
            if state == "completed" or not follow:
                card = self._export.card()
                if card is not None:
                    self._bring(card)
                return self._state(finished=state == "completed")
            time.sleep(PAUSE)

    def _own(self) -> None:
        """Says in the folder whose it is. What was put there without saying so must be a shard
        of this export."""
        owner = self._folder / OWNER
        held = owner.read_text() if owner.exists() else ""
        if held == self._export.id:
            return
        if held:
            raise errors.Conflict(
                f"{self._folder} holds export {held}: give {self._export.id} a folder of its own"
            )
        listed = {str(file["name"]) for shard in self._export.shards() for file in shard["files"]}
        if self._export.format == "imagefolder":
            listed |= {name.removesuffix(".tar") for name in listed}
        for found in itertools.chain.from_iterable(map(self._folder.glob, _READ)):
            if found.relative_to(self._folder).as_posix() not in listed:
                raise errors.Conflict(
                    f"{found} is of another export: give {self._export.id} a folder of its own"
                )
        self._folder.mkdir(parents=True, exist_ok=True)
        owner.write_text(self._export.id)

    def _state(self, *, finished: bool) -> Exported:
        return Exported(
            id=self._export.id,
            folder=self._folder,
            format=self._export.format,
            images=self._images,
            failed=self._failed,
            shards=self._shards,
            bytes=self._bytes,
            fetched=self._fetched,
            finished=finished,
        )

    def _bring(self, shard: Mapping[str, Any]) -> None:
        """A shard's files in their order: the mark that it is whole is the last."""
        for file in shard["files"]:
            self._bytes += int(file["bytes"])
            unpacked = self._export.format == "imagefolder" and file["name"].endswith(".tar")
            if unpacked and self._is_unpacked(shard, file):
                continue
            path = self._place(str(file["name"]))
            if not (path.is_file() and hash_of(path) == file["sha256"]):
                self._fetch(file, path)
            if unpacked:
                _unpack(path, self._folder)

    def _place(self, name: str) -> Path:
        path = self._folder / name
        if not path.resolve().is_relative_to(self._folder.resolve()):
            raise errors.Unavailable(f"the farm names a file outside the folder: {name!r}")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _fetch(self, file: Mapping[str, Any], path: Path) -> None:
        """By its link or, when that fails, through the API. Raises `errors.Error` when it
        cannot be had with its sha256."""
        links = [str(file["url"])] + [f"{self._export.path}/files/{file['name']}"] * TRIES
        for attempt, link in enumerate(links):
            try:
                self._receive(file, link, path)
            except errors.Error as error:
                if attempt == TRIES or (attempt and not error.retry):
                    raise
                time.sleep(attempt)
            else:
                return

    def _receive(self, file: Mapping[str, Any], link: str, path: Path) -> None:
        part = path.with_name(f".{path.name}.part")
        digest = hashlib.sha256()
        with part.open("wb") as out:
            for piece in self._export.fetch(link):
                digest.update(piece)
                self._fetched += out.write(piece)
        if digest.hexdigest() != file["sha256"]:
            raise errors.Unavailable(f"{file['name']} came with other bytes than its sha256 says")
        part.replace(path)

    def _is_unpacked(self, shard: Mapping[str, Any], tar: Mapping[str, Any]) -> bool:
        """Whether the files of a shard's tar are in the folder, each with its sha256."""
        mark = shard["files"][-1]
        path = self._folder / mark["name"]
        if not (path.is_file() and hash_of(path) == mark["sha256"]):
            return False
        pictures = (self._folder / tar["name"]).with_suffix("")
        try:
            with (pictures / SUMS).open() as lines:
                return all(_is_there(pictures, line) for line in lines)
        except OSError:
            return False


def _is_there(folder: Path, line: str) -> bool:
    sha256, _, name = line.rstrip("\n").partition("  ")
    path = folder / name
    return path.is_file() and hash_of(path) == sha256


def _unpack(path: Path, folder: Path) -> None:
    """The folder of pictures that a tar holds appears whole, with their SUMS; the tar is then
    gone."""
    target = path.with_suffix("")
    draft = path.with_name(f".{target.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    with tarfile.open(path) as packed:
        packed.extractall(draft, filter="data")
    made = draft / target.relative_to(folder)
    files = sorted(made.iterdir())
    (made / SUMS).write_text("".join(f"{hash_of(file)}  {file.name}\n" for file in files))
    shutil.rmtree(target, ignore_errors=True)
    made.replace(target)
    shutil.rmtree(draft)
    path.unlink()


def create(job: Job, format: str, *, shard_images: int | None, reuse: bool) -> Export:
    """Has the farm make an export, or finds the job's of this format. Raises
    `errors.BadRequest` for a format that is none."""
    wanted: dict[str, Any] = {"format": format, "reuse": reuse}
    wanted |= {} if shard_images is None else {"shard_images": shard_images}
    return job.open_export(job.post("exports", json=wanted))


def to_dataset(job: Job, folder: Path, **options: Any) -> Any:
    """The job as a `datasets.Dataset`, by way of a Parquet export in `folder`."""
    try:
        import datasets
    except ImportError as exc:
        raise errors.BadRequest(
            "a Hugging Face dataset needs the package datasets: pip install datasets"
        ) from exc
    create(job, "parquet", shard_images=None, reuse=True).download(folder)
    files = sorted(str(path) for path in (folder / "data").glob("*.parquet"))
    if not files:
        raise errors.Conflict(f"no image of {job.id} is done: there is nothing to load")
    return datasets.load_dataset("parquet", data_files=files, split="train", **options)
