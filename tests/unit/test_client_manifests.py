"""A manifest against a folder of pictures, without a farm."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from promptmill import errors, manifest
from promptmill.client import manifests

SIGNER = manifest.Signer(b"k" * 32)
PICTURES = [f"picture {n}".encode() for n in range(5)]


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    header = {"job": "job_1", "final": True, "format": "jpeg"}
    images = [
        {"index": n * 2, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        for n, data in enumerate(PICTURES)
    ]
    path = tmp_path / "job-manifest.jsonl"
    path.write_bytes(b"".join(SIGNER.write(header, images)))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = tmp_path / "out" / "images"
    images.mkdir(parents=True)
    for n, data in enumerate(PICTURES):
        (images / f"{n * 2:09d}.jpg").write_bytes(data)
    return tmp_path / "out"


def test_a_whole_folder_is_complete(signed: Path, folder: Path) -> None:
    report = manifests.check(signed, folder, key=SIGNER.pem)
    assert report.complete
    assert (report.found, report.manifest.images, report.manifest.job) == (5, 5, "job_1")
    assert report.manifest.bytes == sum(map(len, PICTURES))


def test_what_is_missing_or_damaged_is_named(signed: Path, folder: Path) -> None:
    (folder / "images" / "000000002.jpg").write_bytes(b"picture 0")
    (folder / "images" / "000000006.jpg").unlink()
    report = manifests.check(signed, folder)
    assert not report.complete
    assert (report.damaged, report.missing, report.found) == ((2,), (6,), 3)


def test_pictures_are_known_by_their_bytes_whatever_their_names(
    signed: Path, folder: Path, tmp_path: Path
) -> None:
    flat = tmp_path / "flat"
    (flat / "deep").mkdir(parents=True)
    for n, data in enumerate(PICTURES[:4]):
        (flat / "deep" / f"my {n}.JPG").write_bytes(data)
    (flat / "notes.txt").write_bytes(PICTURES[4])
    report = manifests.check(signed, flat)
    assert (report.found, report.missing) == (4, (8,))


def test_a_manifest_is_checked_without_pictures(signed: Path) -> None:
    assert manifests.check(signed).complete
    with pytest.raises(errors.BadRow, match="signed by"):
        manifests.check(signed, key=manifest.encoded(b"o" * 32))


def test_a_changed_manifest_is_refused_whatever_the_folder(signed: Path, folder: Path) -> None:
    signed.write_bytes(signed.read_bytes().replace(b'"index":2', b'"index":3'))
    with pytest.raises(errors.BadRow, match="changed"):
        manifests.check(signed, folder)


def test_no_folder_is_said(signed: Path, tmp_path: Path) -> None:
    with pytest.raises(errors.BadRequest, match="no folder"):
        manifests.check(signed, tmp_path / "nowhere")
