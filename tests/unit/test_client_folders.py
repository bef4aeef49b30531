"""What a client refuses before it sends or brings anything: a file that is no picture, a folder that
holds another export."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from promptmill import errors
from promptmill.client.exports import OWNER, Export
from promptmill.client.uploads import Uploads
from promptmill.exports import ABSENT, ITEM_COLUMNS, Format
from worker.exports import formats


def no_call(*_: Any, **__: Any) -> Any:
    raise AssertionError("nothing may be sent")


def test_a_file_that_is_no_picture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.png"
    path.write_text("no picture")
    uploads = Uploads(SimpleNamespace(call=no_call))  # type: ignore[arg-type]
    with pytest.raises(errors.BadRequest, match=r"notes\.png is no PNG, JPEG or WebP picture"):
        uploads.row({"prompt": "a", "source": str(path)})


@pytest.mark.parametrize("length", [255, 256, 499, 5000])
def test_a_long_text_is_no_local_picture(length: int) -> None:
    uploads = Uploads(SimpleNamespace(call=no_call))  # type: ignore[arg-type]
    assert uploads.reference("x" * length) == "x" * length


class Farm:
    """An export as a transport shows it. shards: the files of each by name."""

    def __init__(self, id: str, format: str, *shards: Mapping[str, bytes]) -> None:
        self.export = Export(self, {"id": id, "format": format, "state": "completed"})  # type: ignore[arg-type]
        self.shards = shards
        self.base = ""  # of the links
        self.asked: list[str] = []

    def get(self, path: str, **_: Any) -> Any:
        return {"data": []} if path.endswith("/shards") else self.export.data

    def pages(self, path: str, **_: Any) -> Iterator[Any]:
        base = self.base + path.removesuffix("/shards")
        for number, files in enumerate(self.shards):
            told = [
                {
                    "name": name,
                    "bytes": len(data),
                    "sha256": hashlib.sha256(data).hexdigest(),
                    "url": f"{base}/files/{name}",
                }
                for name, data in files.items()
            ]
            yield {"id": str(number), "images": 1, "failed": 0, "files": told}

    @contextmanager
    def stream(self, path: str) -> Iterator[Any]:
        self.asked.append(path)
        if not path.startswith("/"):
            raise errors.Unauthorized("this link is not ours")
        name = path.partition("/files/")[2]
        [data] = [files[name] for files in self.shards if name in files]
        yield SimpleNamespace(iter_bytes=lambda: iter([data]))


SHARDS = ({"data/train-00000.tar": b"one"}, {"data/train-00001.tar": b"two"})


def test_a_folder_of_another_export_is_refused(tmp_path: Path) -> None:
    """Its further shards would be read with those of this one."""
    first = Farm("exp_1", "webdataset", *SHARDS)
    first.export.download(tmp_path)
    other = Farm("exp_2", "webdataset", {"data/train-00000.tar": b"three"})
    with pytest.raises(errors.Conflict, match="holds export exp_1: give exp_2 a folder"):
        other.export.download(tmp_path)
    assert (tmp_path / "data" / "train-00000.tar").read_bytes() == b"one"
    again = first.export.download(tmp_path)
    assert (again.shards, again.fetched) == (2, 0)


@pytest.mark.parametrize(
    ("there", "wanted"),
    [
        ("train-00002.tar", "webdataset"),
        ("train-00000.parquet", "webdataset"),
        ("train-00000.parquet", "imagefolder"),
        ("train-00000/1.png", "parquet"),
        ("train-00000/metadata.parquet", "webdataset"),
    ],
)
def test_a_shard_that_the_export_does_not_list_is_refused(
    tmp_path: Path, there: str, wanted: str
) -> None:
    path = tmp_path / "data" / there
    path.parent.mkdir(parents=True)
    path.touch()
    with pytest.raises(errors.Conflict, match="is of another export"):
        Farm("exp_1", wanted, *SHARDS).export.download(tmp_path)


def test_an_export_that_failed_leaves_no_folder(tmp_path: Path) -> None:
    farm = Farm("exp_1", "webdataset")
    farm.export.data = {**farm.export.data, "state": "failed", "error": "too wide"}
    with pytest.raises(errors.Conflict, match="too wide"):
        farm.export.download(tmp_path / "unused")
    assert not (tmp_path / "unused").exists()


def test_a_folder_that_does_not_say_whose_it_is_is_gone_on_with(tmp_path: Path) -> None:
    farm = Farm("exp_1", "webdataset", *SHARDS)
    farm.export.download(tmp_path)
    (tmp_path / OWNER).unlink()
    assert farm.export.download(tmp_path).fetched == 0


def test_pictures_come_unpacked_and_only_what_is_damaged_comes_again(tmp_path: Path) -> None:
    writer = formats.writer(Format.IMAGEFOLDER, [], extension="png", shard="00000")
    info = {name: ABSENT[type] for name, type in ITEM_COLUMNS.items()}
    writer.add(formats.Sample(0, b"picture", "a", info))
    packed = writer.close()
    shard = {"data/train-00000.tar": packed, "00000_stats.json": b"{}"}
    farm = Farm("exp_1", "imagefolder", shard)
    assert farm.export.download(tmp_path).fetched == len(packed) + 2
    picture = tmp_path / "data" / "train-00000" / "000000000.png"
    assert picture.read_bytes() == b"picture"
    assert farm.export.download(tmp_path).fetched == 0
    picture.write_bytes(b"damaged")
    assert farm.export.download(tmp_path).fetched == len(packed)
    assert picture.read_bytes() == b"picture"


def test_a_link_that_fails_falls_back_to_the_files_route(tmp_path: Path) -> None:
    """As behind TLS that the farm does not know of: its links are to another origin."""
    farm = Farm("exp_1", "webdataset", *SHARDS)
    farm.base = "http://farm.example"
    assert farm.export.download(tmp_path).images == 2
    name = "/v1/exports/exp_1/files/data/train-00000.tar"
    assert farm.asked[:2] == [f"http://farm.example{name}", name]
    assert (tmp_path / "data" / "train-00001.tar").read_bytes() == b"two"
