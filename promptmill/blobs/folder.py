"""Objects as plain files in a folder, any of which opens in an image viewer.

An object is written to `.tmp`, synced, then hard-linked to its name: a link never
overwrites, so the name either leads to one whole, durable object or to none. Its metadata
lies beside it in `.meta/<key>.<first 16 of its sha256>`, written before the link; the name
holds the hash, so two writers of one key can never mix one's bytes with the other's
metadata. The sha256 itself is never trusted from a file: `head` reads the object and
computes it. Metadata outlives the death of any process; it is not synced (that would
double the cost of a write), so after a power cut an object may be found with none, never
with another's. `delete` and `probe` remove the temporary files of dead writers."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from promptmill import errors
from promptmill.blobs import CHUNK, New, Stored, check_key, folder_faults
from promptmill.blobs.folder_drafts import Draft, Drafts

SYNCS = 16  # at once: a journal merges them into one commit
BATCH = 64  # objects synced together, each with an open file
SHA = "[0-9a-f]" * 16  # of a note's name
RACES = 100  # each is won as soon as no deletion falls between two system calls


class DirBlobs:
    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._drafts = Drafts(self.root / ".tmp")
        self._meta = self.root / ".meta"
        self._syncs = ThreadPoolExecutor(SYNCS, thread_name_prefix="blob-sync")

    def create(
        self, key: str, data: bytes, *, content_type: str, metadata: Mapping[str, str]
    ) -> Stored:
        return self.create_many([New(key, data, content_type, metadata)])[0]

    def create_many(self, objects: Sequence[New]) -> list[Stored]:
        for new in objects:
            check_key(new.key)
        stored: list[Stored] = []
        with folder_faults.outage(self.root):
            for at in range(0, len(objects), BATCH):
                stored += self._create_batch(objects[at : at + BATCH])
        return stored

    def _create_batch(self, objects: Sequence[New]) -> list[Stored]:
        with contextlib.ExitStack() as stack:
            drafts = [stack.enter_context(self._drafts.of([new.data])) for new in objects]
            folders = {self._path(new.key).parent for new in objects}
            # Before any note, which `list` finds beside it.
            grown = [above for folder in folders for above in _try_folder(folder)]
            self._sync([draft.fd for draft in drafts], grown)
            stored = [self._link(new, draft) for new, draft in zip(objects, drafts, strict=True)]
            self._sync([], folders)
            return stored

    def _sync(self, files: Iterable[int], folders: Iterable[Path]) -> None:
        """All at once, where they are several."""
        todo = [partial(os.fsync, fd) for fd in files]
        todo += [partial(_sync_folder, folder) for folder in folders]
        run = self._syncs.map if len(todo) > 1 else map
        list(run(lambda sync: sync(), todo))

    def create_from(self, key: str, pieces: Iterable[bytes], *, content_type: str) -> Stored:
        check_key(key)
        with folder_faults.outage(self.root), self._drafts.of(pieces) as draft:
            self._sync([draft.fd], _try_folder(self._path(key).parent))
            stored = self._link(New(key, b"", content_type), draft)
            _sync_folder(self._path(key).parent)
            return stored

    def _link(self, new: New, draft: Draft) -> Stored:
        """Gives the draft its name, or adopts what has it. Tried again where a deletion
        prunes the folder at that moment: mkdir may call what it just missed existent."""
        for _ in range(RACES):
            with contextlib.suppress(FileNotFoundError, FileExistsError):
                return self._link_once(new, draft)
            self._sync([], _try_folder(self._path(new.key).parent))
        return self._link_once(new, draft)

    def _link_once(self, new: New, draft: Draft) -> Stored:
        path, sha256 = self._path(new.key), draft.sha256
        note = self._note(new.key, sha256)
        self._write_note(note, new)
        try:
            os.link(draft.path, path)
        except FileExistsError:
            there = self._describe(new.key)
            if there.sha256 != sha256:
                note.unlink(missing_ok=True)
            return there
        except OSError:
            if not path.exists():
                note.unlink(missing_ok=True)
            raise
        return Stored(
            key=new.key,
            size=draft.size,
            sha256=sha256,
            created=True,
            modified=time.time(),
            metadata=dict(new.metadata),
        )

    def _write_note(self, note: Path, new: New) -> None:
        text = json.dumps({"content_type": new.content_type, "metadata": dict(new.metadata)})
        note.parent.mkdir(parents=True, exist_ok=True)
        self._drafts.put(note, text.encode("ascii"))

    def head(self, key: str) -> Stored | None:
        check_key(key)
        with folder_faults.outage(self.root):
            try:
                return self._describe(key)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return None

    def _describe(self, key: str) -> Stored:
        path = self._path(key)
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            stat = os.fstat(file.fileno())
        return Stored(
            key=key,
            size=stat.st_size,
            sha256=sha256,
            modified=stat.st_mtime,
            metadata=_read_note(self._note(key, sha256)),
        )

    def read(self, key: str, *, offset: int = 0, length: int | None = None) -> bytes:
        return b"".join(self.stream(key, offset=offset, length=length))

    def stream(self, key: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        check_key(key)
        with folder_faults.outage(self.root):
            try:
                file = self._path(key).open("rb", buffering=0)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                raise errors.NotFound(f"there is no object {key}") from None
        return self._pieces(file, offset, length)

    def _pieces(self, file: io.FileIO, offset: int, length: int | None) -> Iterator[bytes]:
        left = length
        with file, folder_faults.outage(self.root):
            file.seek(offset)
            while left is None or left > 0:
                piece = file.read(CHUNK if left is None else min(CHUNK, left))
                if not piece:
                    return
                left = None if left is None else left - len(piece)
                yield piece

    def list(self, prefix: str) -> Iterator[Stored]:
        """Walks only the folder that `prefix` lies in. A note alone counts, with size 0."""
        hidden = any(part.startswith(".") for part in prefix.split("/"))
        base = self.root if hidden else self.root / prefix.rpartition("/")[0]
        with folder_faults.outage(self.root):
            for folder, names, files in os.walk(base, onerror=_unless_gone):
                names[:] = [name for name in names if not name.startswith(".")]
                paths = [Path(folder, name) for name in files]
                yield from self._matching(paths, prefix)
                yield from self._unborn(Path(folder), set(files), prefix)

    def _matching(self, paths: Iterable[Path], prefix: str) -> Iterator[Stored]:
        for path in paths:
            key = path.relative_to(self.root).as_posix()
            if key.startswith(prefix):
                with contextlib.suppress(FileNotFoundError):  # deleted since
                    stat = path.stat()
                    yield Stored(key=key, size=stat.st_size, sha256="", modified=stat.st_mtime)

    def _unborn(self, folder: Path, born: set[str], prefix: str) -> Iterator[Stored]:
        """The notes whose writer has not linked, or died before it could link, its object."""
        notes = self._meta / folder.relative_to(self.root)
        for note in notes.glob(f"*.{SHA}") if notes.is_dir() else ():
            key = (folder / note.stem).relative_to(self.root).as_posix()
            if note.stem not in born and key.startswith(prefix):
                with contextlib.suppress(FileNotFoundError):
                    yield Stored(key=key, size=0, sha256="", modified=note.stat().st_mtime)

    def delete(self, keys: Iterable[str]) -> None:
        with folder_faults.outage(self.root):
            folders = set()
            for key in keys:
                path = self._path(check_key(key))
                for note in self._notes(key):
                    note.unlink(missing_ok=True)
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    path.unlink()
                folders.add(path.parent)
            for folder in folders:
                self._prune(folder)
            self._drafts.remove_dead()

    def _prune(self, folder: Path) -> None:
        """Removes a folder that has become empty, its notes, and such folders above it."""
        while folder != self.root and folder.is_relative_to(self.root):
            try:
                folder.rmdir()
            except OSError:  # not empty, or gone
                return
            shutil.rmtree(self._meta / folder.relative_to(self.root), ignore_errors=True)
            folder = folder.parent

    def url(self, key: str, *, expires: float, filename: str | None = None) -> str | None:
        return None

    def probe(self) -> None:
        with folder_faults.outage(self.root):
            self._sync([], _try_folder(self.root))
            self._drafts.remove_dead()
            with self._drafts.of([b"promptmill"]) as draft:
                os.fsync(draft.fd)
                twin = draft.path.with_suffix(".link")
                os.link(draft.path, twin)
                twin.unlink()

    def close(self) -> None:
        self._syncs.shutdown()

    def _path(self, key: str) -> Path:
        return self.root / key

    def _note(self, key: str, sha256: str) -> Path:
        return self._meta / f"{key}.{sha256[:16]}"

    def _notes(self, key: str) -> Iterator[Path]:
        place = self._meta / key
        return place.parent.glob(f"{place.name}.{SHA}")


def _read_note(note: Path) -> dict[str, str]:
    try:
        return dict(json.loads(note.read_text(encoding="ascii"))["metadata"])
    except (FileNotFoundError, ValueError):  # never written, or cut short by a power cut
        return {}


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # emptied and pruned since
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _try_folder(folder: Path) -> list[Path]:
    """Makes it and what is missing above it, unless a deletion prunes that at this moment;
    the folders that have a new entry, which is not synced yet."""
    if folder.is_dir():
        return []
    grown = _try_folder(folder.parent)
    with contextlib.suppress(FileExistsError, FileNotFoundError):
        folder.mkdir()
    return [*grown, folder.parent]


def _unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
