"""The three forms of a shard's file, each written image by image into memory: the same
images give the same bytes. Knows no store."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from promptmill.blobs import tar
from promptmill.exports import ITEM_COLUMNS, Column, Format

ROW_GROUP = 100  # images: what readers of Parquet hold at once


@dataclass(frozen=True, slots=True)
class Sample:
    """A done image. info: ITEM_COLUMNS and the submission's, each of its type."""

    index: int
    image: bytes
    text: str
    info: Mapping[str, Any]


class Writer(Protocol):
    """Takes samples in index order; `close` gives the whole file."""

    size: int

    def add(self, sample: Sample) -> None: ...

    def close(self) -> bytes: ...


def writer(format: Format, columns: Sequence[Column], *, extension: str, shard: str) -> Writer:
    """For a shard of this name (five digits), of images with this extension."""
    if format is Format.WEBDATASET:
        return Tar(extension)
    if format is Format.IMAGEFOLDER:
        return Folder(extension, f"data/train-{shard}")
    return Parquet(columns, extension)


class Tar:
    """WebDataset: KEY.png, KEY.json and KEY.txt of each sample, beside each other."""

    def __init__(self, extension: str) -> None:
        self._extension = extension
        self._file = io.BytesIO()
        self.size = 0

    def add(self, sample: Sample) -> None:
        packed = tar.Sample(
            sample.index, sample.image, self._extension, text=sample.text, info=sample.info
        )
        for name, data in tar.members(packed):
            self.size += self._file.write(tar.member(name, data))

    def close(self) -> bytes:
        self._file.write(tar.END)
        return self._file.getvalue()


class Folder:
    """imagefolder: a folder of pictures with the metadata.jsonl that describes them, as a
    tar from which it is unpacked."""

    def __init__(self, extension: str, folder: str) -> None:
        self._extension = extension
        self._folder = folder
        self._file = io.BytesIO()
        self._lines: list[str] = []
        self.size = 0

    def add(self, sample: Sample) -> None:
        name = f"{sample.index:09d}.{self._extension}"
        line = {"file_name": name, "text": sample.text, **sample.info}
        self._lines.append(json.dumps(line, ensure_ascii=False))
        self.size += self._file.write(tar.member(f"{self._folder}/{name}", sample.image))

    def close(self) -> bytes:
        lines = "".join(f"{line}\n" for line in self._lines).encode()
        self._file.write(tar.member(f"{self._folder}/metadata.jsonl", lines) + tar.END)
        return self._file.getvalue()


class Parquet:
    """Rows of image (bytes and name), text and the columns, in groups of ROW_GROUP; the
    features of Hugging Face datasets stand in the schema."""

    def __init__(self, columns: Sequence[Column], extension: str) -> None:
        import pyarrow
        from pyarrow import parquet

        types = {**ITEM_COLUMNS, **{column.name: column.type for column in columns}}
        arrow = {
            name: getattr(pyarrow, "bool_" if t == "bool" else t)() for name, t in types.items()
        }
        picture = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
        schema = pyarrow.schema([("image", picture), ("text", pyarrow.string()), *arrow.items()])
        features = {"image": {"_type": "Image"}, "text": _value("string")}
        features |= {name: _value(type) for name, type in types.items()}
        told = {"huggingface": json.dumps({"info": {"features": features}})}
        self._pyarrow = pyarrow
        self._schema = schema.with_metadata(told)
        self._extension = extension
        self._file = io.BytesIO()
        self._rows: list[dict[str, Any]] = []
        self._writer = parquet.ParquetWriter(
            self._file,
            self._schema,
            compression={"image.bytes": "none"} | dict.fromkeys(self._leaves(), "zstd"),
            use_dictionary=[name for name in self._leaves() if name != "image.path"],
        )
        self.size = 0

    def _leaves(self) -> list[str]:
        return ["image.path", *(name for name in self._schema.names if name != "image")]

    def add(self, sample: Sample) -> None:
        name = f"{sample.index:09d}.{self._extension}"
        picture = {"bytes": sample.image, "path": name}
        self._rows.append({"image": picture, "text": sample.text, **sample.info})
        self.size += len(sample.image)
        if len(self._rows) == ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            batch = self._pyarrow.RecordBatch.from_pylist(self._rows, schema=self._schema)
            self._writer.write_batch(batch, row_group_size=ROW_GROUP)
            self._rows.clear()

    def close(self) -> bytes:
        self._flush()
        self._writer.close()
        return self._file.getvalue()


def _value(type: str) -> dict[str, str]:
    return {"dtype": type, "_type": "Value"}
