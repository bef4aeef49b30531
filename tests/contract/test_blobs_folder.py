"""What only a folder can get wrong: crashes between its steps, full disks, leftovers."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from promptmill import errors
from promptmill.blobs import New
from promptmill.blobs.folder import DirBlobs
from promptmill.blobs.folder_drafts import Drafts

PNG = "image/png"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "objects"


@pytest.fixture
def store(root: Path):  # type: ignore[no-untyped-def]
    made = DirBlobs(root)
    yield made
    made.close()


def files(root: Path) -> list[str]:
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())


def test_an_object_is_a_plain_file_that_others_may_read(store: DirBlobs, root: Path) -> None:
    store.create("j/1.png", b"picture", content_type=PNG, metadata={"seed": "1"})
    path = root / "j" / "1.png"
    assert path.read_bytes() == b"picture"
    assert path.stat().st_mode & 0o777 == 0o644
    assert path.stat().st_nlink == 1


def crash(root: Path, before: str, data: str) -> None:
    """A writer that kills itself just before it calls os.`before`."""
    code = (
        "import os, signal, sys; from pathlib import Path; from promptmill.blobs.folder import DirBlobs\n"
        "def die(*a, **k): os.kill(os.getpid(), signal.SIGKILL)\n"
        "setattr(os, sys.argv[2], die)\n"
        "DirBlobs(Path(sys.argv[1])).create('j/1.png', sys.argv[3].encode(), content_type='image/png',"
        " metadata={'seed': sys.argv[3]})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(root), before, data], timeout=60, check=False
    )
    assert done.returncode == -9


def test_killed_before_its_link_nothing_is_there(store: DirBlobs, root: Path) -> None:
    crash(root, "link", "dead")
    assert store.head("j/1.png") is None
    made = store.create("j/1.png", b"alive", content_type=PNG, metadata={"seed": "2"})
    assert made.created
    there = store.head("j/1.png")
    assert there is not None
    assert there.metadata == {"seed": "2"}
    store.delete(["j/1.png"])
    assert files(root) == []  # the dead writer's bytes and notes too


def test_what_was_killed_before_its_link_is_listed_until_it_is_deleted(
    store: DirBlobs, root: Path
) -> None:
    """Else its note would stay for as long as the folder."""
    store.create("j/2.png", b"another", content_type=PNG, metadata={})
    crash(root, "link", "dead")
    assert {o.key: o.size for o in store.list("j/")} == {"j/1.png": 0, "j/2.png": 7}
    assert [o.key for o in store.list("j/2")] == ["j/2.png"]
    store.delete(["j/1.png"])
    assert [o.key for o in store.list("")] == ["j/2.png"]
    assert [p for p in files(root) if "1.png" in p] == []


def test_killed_after_its_link_it_is_adopted_with_its_metadata(store: DirBlobs, root: Path) -> None:
    root.mkdir()
    (root / "j").mkdir()
    crash(root, "unlink", "dead")  # pathlib's unlink of the draft
    adopted = store.create("j/1.png", b"alive", content_type=PNG, metadata={"seed": "2"})
    assert not adopted.created
    assert adopted.sha256 == hashlib.sha256(b"dead").hexdigest()
    assert adopted.metadata == {"seed": "dead"}
    store.delete(["j/1.png"])
    assert files(root) == []


@pytest.mark.parametrize(("step", "time"), [("write", 1), ("write", 2), ("link", 1)])
def test_what_a_full_disk_refuses_leaves_nothing(
    store: DirBlobs, root: Path, monkeypatch: pytest.MonkeyPatch, step: str, time: int
) -> None:
    """Neither the draft of the object, nor that of its note, nor the note."""
    real, calls = getattr(os, step), []

    def full(*args: object) -> object:
        calls.append(args)
        if len(calls) == time:
            raise OSError(errno.ENOSPC, "full")
        return real(*args)

    monkeypatch.setattr(os, step, full)
    with pytest.raises(errors.StorageDown, match="the disk is full"):
        store.create("j/1.png", b"picture", content_type=PNG, metadata={"seed": "1"})
    assert files(root) == []
    assert store.create("j/1.png", b"picture", content_type=PNG, metadata={"seed": "1"}).created


def test_stopped_in_the_middle_of_a_deletion_it_is_found_again(
    store: DirBlobs, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create("j/1.png", b"picture", content_type=PNG, metadata={"seed": "1"})
    unlink = Path.unlink

    def once(path: Path, missing_ok: bool = False) -> None:
        monkeypatch.setattr(Path, "unlink", stopped)
        unlink(path, missing_ok)

    def stopped(path: Path, missing_ok: bool = False) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "unlink", once)
    with pytest.raises(KeyboardInterrupt):
        store.delete(["j/1.png"])
    monkeypatch.undo()
    assert [stored.key for stored in store.list("j/")] == ["j/1.png"]
    store.delete(["j/1.png"])
    assert files(root) == []


def test_stopped_before_its_object_came_a_note_is_found_and_deleted(
    store: DirBlobs, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "link", stopped)
    with pytest.raises(KeyboardInterrupt):
        store.create("j/1.png", b"picture", content_type=PNG, metadata={"seed": "1"})
    monkeypatch.undo()
    assert [(stored.key, stored.size) for stored in store.list("j/")] == [("j/1.png", 0)]
    store.delete(["j/1.png"])
    assert files(root) == []


def test_drafts_of_the_living_are_left_alone(store: DirBlobs, root: Path) -> None:
    with Drafts(root / ".tmp").of([b"being written"]) as draft:
        store.probe()
        store.delete(["nothing"])
        assert draft.path.exists()
    assert not draft.path.exists()


def test_lost_or_damaged_notes_cost_metadata_only(store: DirBlobs, root: Path) -> None:
    store.create("j/1.png", b"picture", content_type=PNG, metadata={"seed": "1"})
    [note] = [p for p in (root / ".meta").rglob("*") if p.is_file()]
    note.write_bytes(b"")
    there = store.head("j/1.png")
    assert there is not None
    assert (there.metadata, there.sha256) == ({}, hashlib.sha256(b"picture").hexdigest())


def test_a_flipped_byte_is_seen_by_head(store: DirBlobs, root: Path) -> None:
    made = store.create("j/1.png", b"picture", content_type=PNG, metadata={})
    (root / "j" / "1.png").write_bytes(b"pictuRe")
    there = store.head("j/1.png")
    assert there is not None
    assert there.sha256 != made.sha256


def test_creation_races_with_pruning(store: DirBlobs, root: Path) -> None:
    """A deletion that empties a folder while another writer fills it loses nothing."""
    stop = threading.Event()
    other = DirBlobs(root)

    def churn() -> None:
        while not stop.is_set():
            other.create("deep/er/x", b"x", content_type=PNG, metadata={})
            other.delete(["deep/er/x"])

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for i in range(30):
            assert store.create(f"deep/er/{i}", b"y", content_type=PNG, metadata={}).created
            assert store.read(f"deep/er/{i}") == b"y"
            store.delete([f"deep/er/{i}"])
    finally:
        stop.set()
        thread.join(30)
        other.close()


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.ENOSPC, "disk is full"), (errno.EACCES, "owner"), (errno.EROFS, "read-only")],
)
def test_faults_of_the_disk_name_the_setting(
    store: DirBlobs, root: Path, monkeypatch: pytest.MonkeyPatch, number: int, remedy: str
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(errors.StorageDown, match=remedy) as raised:
        store.create_many([New(f"j/{i}", b"x", PNG) for i in range(3)])
    monkeypatch.undo()
    assert "PROMPTMILL_STORAGE_URL" in raised.value.message
    assert "PROMPTMILL_DATA_DIR" in raised.value.message
    assert str(root) in raised.value.message
    assert files(root) == []


def test_really_full_disk(tmp_path: Path) -> None:
    """A file size limit stands in for a full disk: the kernel refuses the write."""
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from promptmill import errors; from promptmill.blobs.folder import DirBlobs\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "store = DirBlobs(Path(sys.argv[1]))\n"
        "try: store.create('a', bytes(5000), content_type='x', metadata={})\n"
        "except errors.StorageDown as e: print(e.message)\n"
        "store.close(); print(store.head('a'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "cannot store objects in" in done.stdout
    assert done.stdout.endswith("None\n")
    assert files(tmp_path) == []


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "objects").write_text("")
    store = DirBlobs(tmp_path / "objects")
    with pytest.raises(errors.StorageDown, match="PROMPTMILL_STORAGE_URL"):
        store.probe()
    store.close()
