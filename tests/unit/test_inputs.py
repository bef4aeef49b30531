"""Source pictures: what is refused, how they are brought to an item's size, what a worker
keeps of them, and how a generator is given them."""

from __future__ import annotations

import hashlib
import io
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from promptmill import errors, keys, pictures
from promptmill.blobs.fake import MemoryBlobs
from promptmill.jobs import Item
from promptmill.records import Output, Work
from worker.generators.base import Input, Pixels
from worker.generators.stub import Stub
from worker.inputs import Inputs, _mask
from worker.outcomes import Fault, Picture
from worker.render import Renderer


def file(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    depth = len(mode) if len(mode) > 1 else 1
    values = np.random.default_rng(width).integers(0, 256, (height, width, depth), dtype=np.uint8)
    return Image.fromarray(values.squeeze(), mode)


def work(item: Item) -> Work:
    return Work(item, 1, "job_1", 1, item.index, 0, 0, "stub", Output())


def item(task: str, source: str, mask: str | None = None, *, strength: float = 0.5) -> Item:
    return Item(0, 0, 0, "a cat", 1, 64, 64, task=task, source=source, mask=mask, strength=strength)


def put(blobs: MemoryBlobs, data: bytes) -> str:
    sha256 = hashlib.sha256(data).hexdigest()
    key = keys.source(Output(), "job_1", sha256=sha256)
    blobs.create(key, data, content_type="image/png", metadata={})
    return sha256


def given(inputs: Inputs, of: Item) -> Input:
    found = inputs.of(work(of))
    assert isinstance(found, Input)
    return found


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"GIF89a" + bytes(100), "no PNG, JPEG or WebP"),
        (file(noise(8, 8), "BMP"), "no PNG, JPEG or WebP"),
        (b"", "no PNG, JPEG or WebP"),
        (file(noise(64, 64))[:-900], "damaged"),
        (file(noise(64, 64), "JPEG")[:-900], "damaged"),
        (file(Image.new("1", (9000, 5000))), "9000x5000; it may have 40,000,000 pixels"),
        (file(Image.new("1", (15000, 15000))), "it may have 40,000,000 pixels"),
    ],
)
def test_what_cannot_be_a_source_is_refused_with_the_reason(data: bytes, message: str) -> None:
    with pytest.raises(errors.BadRow, match=message):
        pictures.check(data)


def test_a_file_over_the_limit_is_refused_undecoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_BYTES", 100)
    with pytest.raises(errors.BadRow, match="at most 100"):
        pictures.check(file(noise(64, 64)))


def test_what_a_file_holds_is_told_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    turned = pictures.check(file(noise(40, 20), "JPEG", exif=exif))
    assert turned == pictures.Facts("jpeg", 20, 40, transparent=False)
    assert pictures.check(file(noise(8, 8, "RGBA"))).transparent
    assert not pictures.check(file(Image.new("RGBA", (8, 8), "red"))).transparent
    assert pictures.check(file(noise(8, 8), "WEBP", lossless=True)).format == "webp"


def test_a_source_of_the_right_size_keeps_every_pixel() -> None:
    blobs, picture = MemoryBlobs(), noise(64, 64)
    found = given(Inputs(blobs), item("img2img", put(blobs, file(picture))))
    np.testing.assert_array_equal(found.pixels, np.asarray(picture))
    assert found.mask is None
    assert not found.pixels.flags.writeable


def test_a_source_is_cut_to_the_middle_and_laid_on_white() -> None:
    wide = Image.new("RGBA", (128, 64), (0, 0, 0, 0))
    wide.paste((255, 0, 0, 255), (32, 0, 64, 64))
    blobs = MemoryBlobs()
    found = given(Inputs(blobs), item("img2img", put(blobs, file(wide))))
    assert found.pixels.shape == (64, 64, 3)
    assert tuple(found.pixels[30, 10]) == (255, 0, 0)
    assert tuple(found.pixels[30, 50]) == (255, 255, 255)


@pytest.mark.parametrize(
    "mask",
    [
        Image.fromarray(np.repeat(np.array([[255] * 32 + [0] * 32], np.uint8), 64, axis=0)),
        Image.fromarray(
            np.repeat(np.array([[[9, 9, 9, 0]] * 32 + [[9, 9, 9, 255]] * 32], np.uint8), 64, 0)
        ),
        Image.fromarray(
            np.repeat(np.array([[[255] * 4] * 8 + [[0, 0, 0, 255]] * 8], np.uint8), 16, 0)
        ),
    ],
    ids=["white", "clear", "white in an opaque RGBA file of another size"],
)
def test_a_mask_is_where_it_is_white_or_clear(mask: Image.Image) -> None:
    blobs = MemoryBlobs()
    of = item("inpaint", put(blobs, file(noise(64, 64))), put(blobs, file(mask)))
    found = given(Inputs(blobs), of).mask
    assert found is not None
    assert (found[:, :32] == 255).all()
    assert (found[:, 32:] == 0).all()


def test_sixteen_bits_of_grey_keep_their_shades() -> None:
    levels = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    data = io.BytesIO()
    Image.fromarray(levels).save(data, "PNG")
    image, _ = pictures.decode(data.getvalue())
    assert np.array_equal(np.asarray(image)[..., 0], levels >> 8)
    levels[:] = 1000
    levels[:, 32:] = 65535
    data = io.BytesIO()
    Image.fromarray(levels).save(data, "PNG", transparency=1000)
    anew = _mask(pictures.decode(data.getvalue())[0], (64, 64))
    assert not anew[:, :32].any() and (anew[:, 32:] == 255).all()


def test_a_source_that_is_gone_or_changed_fails_its_item_alone() -> None:
    blobs = MemoryBlobs()
    gone = Inputs(blobs).of(work(item("img2img", "0" * 64)))
    assert isinstance(gone, Fault)
    assert gone.code == "source_missing"
    key = keys.source(Output(), "job_1", sha256="1" * 64)
    blobs.create(key, file(noise(8, 8)), content_type="image/png", metadata={})
    changed = Inputs(blobs).of(work(item("img2img", "1" * 64)))
    assert isinstance(changed, Fault)
    assert changed.code == "source_damaged"


def test_decoded_pictures_are_kept_up_to_a_limit() -> None:
    class Counting(MemoryBlobs):
        reads = 0

        def read(self, key: str, *, offset: int = 0, length: int | None = None) -> bytes:
            self.reads += 1
            return super().read(key, offset=offset, length=length)

    blobs = Counting()
    first, second, third = (put(blobs, file(noise(64 + n, 64))) for n in range(3))
    inputs = Inputs(blobs, max_bytes=2 * 64 * 64 * 3)
    for sha256 in (first, second, first, second, third, second):
        given(inputs, item("img2img", sha256))
    assert blobs.reads == 3
    given(inputs, item("img2img", first))
    assert blobs.reads == 4


class Noting(Stub):
    """The stub, remembering how many inputs each batch had."""

    def __init__(self) -> None:
        self.load(device="cpu", quantization="none")
        self.given: list[tuple[int, int]] = []

    def generate(self, items: Sequence[Item], inputs: Sequence[Input] = ()) -> Pixels:
        self.given.append((len(items), len(inputs)))
        return super().generate(items, inputs)


def rendered(renderer: Renderer, items: Sequence[Item], inputs: Sequence[Input]) -> list[Pixels]:
    outcomes = renderer.render("b", items, inputs)
    assert all(isinstance(one, Picture) for one in outcomes)
    return [one.pixels for one in outcomes if isinstance(one, Picture)]


@pytest.fixture
def inputs() -> Callable[[int], Input]:
    def of(number: int) -> Input:
        mask = np.zeros((64, 64), np.uint8)
        mask[:, : 8 * number + 8] = 255
        return Input(np.asarray(noise(64 + number, 64))[:, :64], mask)

    return of


def test_inputs_are_padded_with_their_items_and_follow_them(
    inputs: Callable[[int], Input],
) -> None:
    generator = Noting()
    items = [item("inpaint", "s", "m") for _ in range(3)]
    given = [inputs(number) for number in range(3)]
    made = rendered(Renderer(generator), items, given)
    assert generator.given == [(4, 4)]
    for one, pixels in zip(given, made, strict=True):
        assert one.mask is not None
        kept = one.mask == 0
        np.testing.assert_array_equal(pixels[kept], one.pixels[kept])
        assert (pixels[~kept] != one.pixels[~kept]).any()
    alone = rendered(Renderer(generator), items[1:2], given[1:2])
    np.testing.assert_array_equal(alone[0], made[1])


def test_a_source_shows_through_by_one_minus_strength(inputs: Callable[[int], Input]) -> None:
    source = Input(inputs(0).pixels)
    weak, strong, new = (
        rendered(Renderer(Noting()), [item("img2img", "s", strength=s)], [source])[0]
        for s in (0.0, 0.5, 1.0)
    )
    np.testing.assert_array_equal(weak, source.pixels)
    middle = (source.pixels.astype(int) + new.astype(int)) / 2
    assert np.abs(strong - middle).max() <= 0.5


def test_large_pictures_are_decoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes three times its pixels meanwhile, and a tenant may send many."""
    monkeypatch.setattr(pictures, "LARGE", 63 * 63)
    data, small = file(noise(64, 64)), file(noise(8, 8))
    inside, most, lock, true = 0, 0, threading.Lock(), pictures.ImageOps.exif_transpose

    def slow(image: Image.Image) -> Image.Image:
        nonlocal inside, most
        with lock:
            inside += image.width == 64
            most = max(most, inside)
        time.sleep(0.02)
        with lock:
            inside -= image.width == 64
        return true(image)

    monkeypatch.setattr(pictures.ImageOps, "exif_transpose", slow)
    with ThreadPoolExecutor(8) as pool:
        sizes = [facts.width for facts in pool.map(pictures.check, [data, small] * 8)]
    assert sizes == [64, 8] * 8
    assert most == 1
