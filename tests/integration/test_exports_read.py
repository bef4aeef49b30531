"""What others make of an export: the loaders of Hugging Face, webdataset, pyarrow and duckdb
read a job of 10,000 images with failures, unicode prompts and dots in its names."""

from __future__ import annotations

import gc
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from promptmill.client import Client, Exported
from tests.integration.api_farm import ApiFarm
from tests.integration.export_kit import render, work_off

pytestmark = [
    pytest.mark.servers,
    pytest.mark.timeout(420),
    # The loaders leave open files to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

COUNT, EVERY = 10_000, 500  # rows; each so-manieth fails
SHARD = 4000


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture(scope="module", autouse=True)
def offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Loaders keep their caches here and ask no network."""
    with pytest.MonkeyPatch.context() as patched:
        home = tmp_path_factory.mktemp("hf")
        for name, value in {
            "HF_HOME": str(home),
            "HF_DATASETS_CACHE": str(home / "datasets"),
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        }.items():
            patched.setenv(name, value)
        yield


def prompt(index: int) -> str:
    return f'ein größer Baum, 树 🌳 n.{index}, "quoted"\tline\nbreak'


def row(index: int) -> dict[str, Any]:
    """Columns whose types only show when all rows are seen."""
    made: dict[str, Any] = {"prompt": prompt(index), "id": f"v1.2/row.{index}.png"}
    made |= {"file.name": f"a.b.{index}", "weight": index if index % 2 else index / 4}
    made |= {"day": f"2024-05-{index % 28 + 1:02d}"}
    if index >= 10:
        made |= {"late": index, "tags": ["x", index], "mixed": index if index % 3 else "three"}
    if index % EVERY == 3:
        made["prompt"] = f"fail {index}"
    return made


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[ApiFarm]:
    with ApiFarm(tmp_path_factory.mktemp("farm"), valkey_url) as served:
        yield served


@pytest.fixture(scope="module")
def folders(farm: ApiFarm, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The export of one job in each format."""
    made = {}
    with Client(farm.url) as client:
        job = client.submit(map(row, range(COUNT)), name="v1.0 data set", size="32x32")
        render(farm)
        for format in ("webdataset", "imagefolder", "parquet"):
            job.export(None, format, shard_images=SHARD)
        work_off(farm)
        for format in ("webdataset", "imagefolder", "parquet"):
            folder = tmp_path_factory.mktemp(format)
            result = job.export(folder, format, shard_images=SHARD)
            assert isinstance(result, Exported)
            assert (result.images, result.failed, result.shards) == (GOOD, COUNT - GOOD, 3)
            made[format] = folder
    return made


INDEXES = [index for index in range(COUNT) if index % EVERY != 3]
GOOD = len(INDEXES)
CAPTIONS = [prompt(index) for index in INDEXES]


def check(infos: list[dict[str, Any]]) -> None:
    """The columns of all rows, in order."""
    assert [info["key"] for info in infos] == [f"{index:09d}" for index in INDEXES]
    assert infos[20]["custom_id"] == f"v1.2/row.{INDEXES[20]}.png"
    assert infos[20]["file.name"] == f"a.b.{INDEXES[20]}"
    assert infos[0]["day"] == "2024-05-01"
    assert [info["weight"] for info in infos[:3]] == [0.0, 1.0, 0.5]
    assert (infos[0]["late"], infos[-1]["late"]) == (-1, COUNT - 1)
    assert (infos[0]["tags"], json.loads(infos[-1]["tags"])) == ("", ["x", COUNT - 1])
    assert [info["mixed"] for info in infos[10:13]] == ["11", "three", "13"]
    assert all(value is not None for info in infos for value in info.values())


def colour(image: PIL.Image.Image) -> tuple[int, ...]:
    image.load()
    assert image.size == (32, 32)
    return tuple(image.convert("RGB").getpixel((5, 5)))  # type: ignore[arg-type]


def stream(format: str, folders: dict[str, Path]) -> list[dict[str, Any]]:
    """The first rows, by the loader of that name, which sees no dataset card."""
    import datasets

    folder = str(folders[format])
    found = datasets.load_dataset(format, data_dir=folder, split="train", streaming=True)
    return list(found.take(20))


def test_hugging_face_reads_the_webdataset(folders: dict[str, Path]) -> None:
    import datasets

    found = datasets.load_dataset(str(folders["webdataset"]), split="train")
    assert found.num_rows == GOOD
    assert found["txt"][:] == CAPTIONS
    assert isinstance(found.features["png"], datasets.Image)
    check(found["json"][:])
    for at in range(0, GOOD, 997):
        colour(found[at]["png"])
    first = stream("webdataset", folders)
    assert [one["txt"] for one in first] == CAPTIONS[:20]


def test_webdataset_reads_the_webdataset(folders: dict[str, Path]) -> None:
    import webdataset

    shards = sorted(str(path) for path in (folders["webdataset"] / "data").glob("*.tar"))
    found = list(webdataset.WebDataset(shards, shardshuffle=False))
    assert [sample["__key__"] for sample in found] == [f"{index:09d}" for index in INDEXES]
    assert [sample["txt"].decode() for sample in found] == CAPTIONS
    assert {
        tuple(sorted(sample.keys() - {"__key__", "__url__", "__local_path__"})) for sample in found
    } == {("json", "png", "txt")}
    for sample in found[::97]:
        colour(PIL.Image.open(io.BytesIO(sample["png"])))
    check([json.loads(sample["json"]) for sample in found])


def test_hugging_face_reads_the_imagefolder(folders: dict[str, Path]) -> None:
    import datasets

    found = datasets.load_dataset(str(folders["imagefolder"]), split="train")
    assert found.num_rows == GOOD
    rows = found.remove_columns(["image"]).to_list()
    order = sorted(range(GOOD), key=lambda at: str(rows[at]["key"]))  # folders come in any order
    assert [rows[at].pop("text") for at in order] == CAPTIONS
    check([rows[at] for at in order])
    for at in range(0, GOOD, 997):
        colour(found[at]["image"])
    assert len(stream("imagefolder", folders)) == 20


def test_hugging_face_reads_the_parquet(folders: dict[str, Path]) -> None:
    import datasets

    found = datasets.load_dataset(str(folders["parquet"]), split="train")
    assert isinstance(found.features["image"], datasets.Image)
    assert found["text"][:] == CAPTIONS
    check(found.remove_columns(["image", "text"]).to_list())
    for at in range(0, GOOD, 997):
        colour(found[at]["image"])
    first = stream("parquet", folders)
    assert [one["text"] for one in first] == CAPTIONS[:20]


def test_pyarrow_reads_the_parquet(folders: dict[str, Path]) -> None:
    import pyarrow.parquet

    paths = sorted((folders["parquet"] / "data").glob("*.parquet"))
    rows: list[dict[str, Any]] = []
    for path in paths:
        file = pyarrow.parquet.ParquetFile(path)
        groups = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
        assert set(groups[:-1]) == {100}
        rows += file.read().to_pylist()
    assert [one["text"] for one in rows] == CAPTIONS
    assert rows[0]["image"]["path"] == "000000000.png"
    for one in rows[::97]:
        colour(PIL.Image.open(io.BytesIO(one["image"]["bytes"])))


def test_duckdb_reads_the_parquet(folders: dict[str, Path]) -> None:
    import duckdb

    glob = str(folders["parquet"] / "data" / "*.parquet")
    with duckdb.connect() as db:
        found = db.execute(
            "SELECT text, image.bytes, late FROM read_parquet(?) ORDER BY key", [glob]
        ).fetchall()
    assert [text for text, _, _ in found] == CAPTIONS
    colour(PIL.Image.open(io.BytesIO(found[-1][1])))


def test_failed_rows_and_the_card_stand_beside(folders: dict[str, Path]) -> None:
    for folder in folders.values():
        failed = [
            json.loads(line)
            for path in sorted(folder.glob("*_failures.jsonl"))
            for line in path.read_text().splitlines()
        ]
        assert [one["key"] for one in failed] == [f"{i:09d}" for i in range(3, COUNT, EVERY)]
        assert {one["error_code"] for one in failed} == {"render_failed"}
        stats = [json.loads(path.read_text()) for path in sorted(folder.glob("*_stats.json"))]
        assert sum(one["successes"] for one in stats) == GOOD
        assert stats[0]["status_dict"] == {"no such picture": 8, "success": 3992}
        card = (folder / "README.md").read_text()
        assert "# v1.0 data set" in card
        assert f"{GOOD:,} images with captions" in card
        assert f"; {COUNT - GOOD} rows without one. Format" in card
        assert "trainedAlgorithmicMedia" in card
        with PIL.Image.open(folder / "sample.png") as grid:
            assert grid.width > 1000
        report = json.loads((folder / "duplicates.json").read_text())
        assert report["equal_prompt_and_seed"]["groups"] == 0
