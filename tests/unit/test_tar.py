"""Heads of tar members: those of the standard library, made faster."""

from __future__ import annotations

import io
import tarfile

from hypothesis import given
from hypothesis import strategies as st

from promptmill.blobs import tar

NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)


@given(NAMES, st.integers(0, 8**11 - 1))
def test_a_head_is_the_one_that_the_library_makes(name: str, size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o444
    try:
        usual = info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")
    except ValueError:  # too long, and it cannot be cut at a slash
        assert len(name.encode()) > tar.NAME
        return
    assert tar.head(name, size) == usual


@given(st.lists(st.binary(max_size=1500), max_size=5))
def test_the_library_reads_what_is_packed(pictures: list[bytes]) -> None:
    samples = [
        tar.Sample(index, picture, "png", text=f"prompt {index}", info={"key": f"{index:09d}"})
        for index, picture in enumerate(pictures)
    ]
    part, places = tar.pack(samples)
    assert [part[at : at + length] for at, length in places] == pictures
    with tarfile.open(fileobj=io.BytesIO(part)) as read:
        assert read.getnames() == [
            f"{index:09d}.{extension}"
            for index in range(len(pictures))
            for extension in ("json", "png", "txt")
        ]
        for index, picture in enumerate(pictures):
            file = read.extractfile(f"{index:09d}.png")
            assert file is not None
            assert file.read() == picture
