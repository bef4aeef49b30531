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
DESCRIBED = 1000  # of a folder, whose pictures stand beside


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
        return Folder(columns, extension, f"data/train-{shard}")
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
    """imagefolder: a folder of pictures with the metadata.parquet that describes them, as a
    tar from which it is unpacked. Of JSON lines readers guess the types: a text that looks
    like a date becomes one."""

    def __init__(self, columns: Sequence[Column], extension: str, folder: str) -> None:
        import pyarrow

        self._extension = extension
        self._folder = folder
        self._file = io.BytesIO()
        schema = _schema(columns, file_name=pyarrow.string())
        self._table = _Table(schema, path="file_name", group=DESCRIBED)
        self.size = 0

    def add(self, sample: Sample) -> None:
        name = f"{sample.index:09d}.{self._extension}"
        self._table.add({"file_name": name, "text": sample.text, **sample.info})
        self.size += self._file.write(tar.member(f"{self._folder}/{name}", sample.image))

    def close(self) -> bytes:
        name = f"{self._folder}/metadata.parquet"
        self._file.write(tar.member(name, self._table.close()) + tar.END)
        return self._file.getvalue()


class Parquet:
    """Rows of image (bytes and name), text and the columns, in groups of ROW_GROUP; the
    features of Hugging Face datasets stand in the schema."""

    def __init__(self, columns: Sequence[Column], extension: str) -> None:
        import pyarrow

        picture = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
        features = {"image": {"_type": "Image"}, "text": _value("string")}
        features |= {name: _value(type) for name, type in _types(columns).items()}
        told = {"huggingface": json.dumps({"info": {"features": features}})}
        schema = _schema(columns, image=picture).with_metadata(told)
        self._table = _Table(schema, path="image.path", group=ROW_GROUP)
        self._extension = extension
        self.size = 0

    def add(self, sample: Sample) -> None:
        name = f"{sample.index:09d}.{self._extension}"
        picture = {"bytes": sample.image, "path": name}
        self._table.add({"image": picture, "text": sample.text, **sample.info})
        self.size += len(sample.image)

    def close(self) -> bytes:
        return self._table.close()


class _Table:
    """Rows as Parquet, so many in a group. path: the leaf that names a row's picture, different
    in each row. The bytes of pictures are packed already and stay as they are."""

    def __init__(self, schema: Any, *, path: str, group: int) -> None:
        import pyarrow
        from pyarrow import parquet

        leaves = schema.names[1:]
        self._pyarrow = pyarrow
        self._schema = schema
        self._group = group
        self._rows: list[dict[str, Any]] = []
        self._file = io.BytesIO()
        self._writer = parquet.ParquetWriter(
            self._file,
            schema,
            compression=dict.fromkeys([path, *leaves], "zstd"),
            use_dictionary=leaves,
        )

    def add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        if len(self._rows) == self._group:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            batch = self._pyarrow.RecordBatch.from_pylist(self._rows, schema=self._schema)
            self._writer.write_batch(batch, row_group_size=self._group)
            self._rows.clear()

    def close(self) -> bytes:
        self._flush()
        self._writer.close()
        return self._file.getvalue()


def _types(columns: Sequence[Column]) -> dict[str, str]:
    return {**ITEM_COLUMNS, **{column.name: column.type for column in columns}}


def _schema(columns: Sequence[Column], **picture: Any) -> Any:
    """A column that leads to the picture, the text, and the columns."""
    import pyarrow

    arrow = {
        name: getattr(pyarrow, "bool_" if t == "bool" else t)()
        for name, t in _types(columns).items()
    }
    return pyarrow.schema([*picture.items(), ("text", pyarrow.string()), *arrow.items()])


def _value(type: str) -> dict[str, str]:
    return {"dtype": type, "_type": "Value"}
