"""Encoded pictures: the pixels, the provenance inside, and the same bytes for equal items."""

from __future__ import annotations

import io
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from promptmill.jobs import Item
from worker import encode
from worker.generators.base import Pixels

ITEM = Item(
    index=7,
    row=3,
    sample=1,
    prompt="a red heart, <glossy> & 'new'",
    seed=9_007_199_254_740_991,
    width=64,
    height=48,
    negative_prompt="blurry",
    guidance=2.5,
)
FORMATS = ["png", "webp", "jpeg"]


@pytest.fixture
def pixels() -> Pixels:
    y, x = np.mgrid[0:48, 0:64]
    return np.stack([x * 4, y * 5, (x + y) * 2], -1).astype(np.uint8)


def encoded(pixels: Pixels, item: Item = ITEM, *, format: str = "png") -> bytes:
    return encode.encode(pixels, item, model="emoji-gan", fingerprint="f00d", format=format)


def opened(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return image


def xmp_of(image: Image.Image) -> ET.Element:
    packet = image.info.get("XML:com.adobe.xmp") or image.info["xmp"].decode()
    return next(
        ET.fromstring(re.sub(r"<\?xpacket.*?\?>", "", packet)).iter(
            "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description"
        )
    )


@pytest.mark.parametrize("format", ["png", "webp"])
def test_lossless_formats_keep_every_pixel(pixels: Pixels, format: str) -> None:
    image = opened(encoded(pixels, format=format))
    assert image.format == format.upper()
    assert np.array_equal(np.asarray(image.convert("RGB")), pixels)


def test_jpeg_is_close(pixels: Pixels) -> None:
    image = opened(encoded(pixels, format="jpeg"))
    difference = np.asarray(image).astype(int) - pixels
    assert image.format == "JPEG"
    assert abs(difference).mean() < 3


@pytest.mark.parametrize("format", FORMATS)
def test_bytes_depend_on_the_item_alone(pixels: Pixels, format: str) -> None:
    same = replace(ITEM, index=8, row=0, sample=0, custom_id="mine", metadata={"a": "b"})
    assert encoded(pixels, format=format) == encoded(pixels.copy(), same, format=format)
    for change in ({"prompt": "another"}, {"seed": 1}, {"negative_prompt": ""}, {"steps": 9}):
        assert encoded(pixels, replace(ITEM, **change), format=format) != encoded(
            pixels, format=format
        )


def test_png_text_that_image_tools_read(pixels: Pixels) -> None:
    assert opened(encoded(pixels)).info["parameters"] == (
        "a red heart, <glossy> & 'new'\n"
        "Negative prompt: blurry\n"
        "Steps: 1, CFG scale: 2.5, Seed: 9007199254740991, Size: 64x48, Model: emoji-gan"
    )


def test_png_json_block(pixels: Pixels) -> None:
    assert json.loads(opened(encoded(pixels)).info["promptmill"]) == {
        "prompt": "a red heart, <glossy> & 'new'",
        "parameters": {
            "negative_prompt": "blurry",
            "width": 64,
            "height": 48,
            "steps": 1,
            "guidance": 2.5,
            "task": "text2image",
        },
        "seed": 9_007_199_254_740_991,
        "model": "emoji-gan",
        "fingerprint": "f00d",
    }


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_says_that_a_model_made_it(pixels: Pixels, format: str) -> None:
    described = xmp_of(opened(encoded(pixels, format=format)))
    kind = described.attrib["{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"]
    assert kind == "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


@pytest.mark.parametrize("format", ["webp", "jpeg"])
def test_other_formats_carry_the_same_texts(pixels: Pixels, format: str) -> None:
    image = opened(encoded(pixels, format=format))
    block = xmp_of(image).attrib["{urn:promptmill}image"]
    assert block == encode.provenance(ITEM, "emoji-gan", "f00d")
    comment = image.getexif().get_ifd(0x8769)[0x9286]
    assert comment == b"UNICODE\0" + encode.parameters(ITEM, "emoji-gan").encode("utf-16-be")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "prompt", ["", "ünïcode 猫 🐈 \u0301", 'quotes " \\ \n\t end', "&" * 32_000]
)
def test_any_prompt_makes_a_picture(pixels: Pixels, format: str, prompt: str) -> None:
    image = opened(encoded(pixels, replace(ITEM, prompt=prompt), format=format))
    assert image.size == (64, 48)
    if format == "png":
        assert json.loads(image.info["promptmill"])["prompt"] == prompt
        assert image.info["parameters"].startswith(prompt)
    else:
        block = json.loads(xmp_of(image).attrib["{urn:promptmill}image"])
        assert block["seed"] == ITEM.seed
        assert block.get("prompt", prompt) == prompt


def test_a_source_picture_is_part_of_the_provenance(pixels: Pixels) -> None:
    item = replace(ITEM, task="img2img", source="file_1", strength=0.5)
    info = opened(encoded(pixels, item)).info
    assert json.loads(info["promptmill"])["parameters"]["source"] == "file_1"
    assert "Task: img2img, Denoising strength: 0.5" in info["parameters"]


def test_encoders_have_names() -> None:
    names = [encode.encoder(format) for format in FORMATS]
    assert all(re.fullmatch(r"pillow-[\d.]+\+[a-z-]+-[\d.]+", name) for name in names)
    assert all(a != b for a, b in pairwise(names))


def test_unknown_format_is_refused(pixels: Pixels) -> None:
    with pytest.raises(KeyError):
        encoded(pixels, format="bmp")


def test_the_line_of_settings_reads_back_with_a_model_of_any_name() -> None:
    """As the tools that show `parameters` read it: KEY: VALUE pairs, text with separators
    in double quotes."""
    for model in ("emoji-gan", "org/model", 'odd, name: "v2"'):
        line = encode.parameters(ITEM, model).splitlines()[-1]
        pairs = re.findall(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)', line)
        read = dict(pairs)
        told = read["Model"]
        assert (json.loads(told) if told.startswith('"') else told) == model
        assert read["Seed"] == str(ITEM.seed)
        assert [name for name, _ in pairs] == ["Steps", "CFG scale", "Seed", "Size", "Model"]
