"""What a client refuses before it sends or brings anything: a file that is no picture, a folder that
holds another format."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from promptmill import errors
from promptmill.client.exports import _Download
from promptmill.client.uploads import Uploads


def no_call(*_: Any, **__: Any) -> Any:
    raise AssertionError("nothing may be sent")


def test_a_file_that_is_no_picture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.png"
    path.write_text("no picture")
    uploads = Uploads(SimpleNamespace(call=no_call))  # type: ignore[arg-type]
    with pytest.raises(errors.BadRequest, match=r"notes\.png is no PNG, JPEG or WebP picture"):
        uploads.row({"prompt": "a", "source": str(path)})


@pytest.mark.parametrize(
    ("there", "wanted"),
    [
        ("train-0.parquet", "webdataset"),
        ("train-0.parquet", "imagefolder"),
        ("train-0.tar", "parquet"),
        ("train-0/metadata.parquet", "parquet"),
        ("train-0/metadata.parquet", "webdataset"),
    ],
)
def test_a_folder_of_another_format_is_refused(tmp_path: Path, there: str, wanted: str) -> None:
    path = tmp_path / "data" / there
    path.parent.mkdir(parents=True)
    path.touch()
    export: Any = SimpleNamespace(format=wanted, refresh=no_call)
    with pytest.raises(errors.Conflict, match="is of another format"):
        _Download(export, tmp_path, lambda _: None).run(follow=False)
