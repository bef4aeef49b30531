"""What a notebook shows of a job and of an image."""

from __future__ import annotations

import base64
import io
import re

import PIL.Image
import pytest

from promptmill.client import Client, notebook
from tests.unit import client_stub
from tests.unit.client_stub import serving


def _png(prompt: str) -> bytes:
    """Grain, so that it does not compress: about 30 kB."""
    noise = PIL.Image.effect_noise((200, 150), 90).convert("RGB")
    out = io.BytesIO()
    noise.save(out, "PNG", compress_level=1)
    return out.getvalue()


def test_a_job_is_a_bounded_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = _png("")
    monkeypatch.setattr(client_stub, "picture", lambda prompt: pixels)
    with serving() as farm, Client(farm.url) as client:
        prompts = ['<script>alert("x")</script>', *(f"heart {n}" for n in range(99)), "bad one"]
        id = farm.add(prompts)["id"]
        farm.jobs[id]["name"] = "<b>first</b>"
        shown = client.job(id)._repr_html_()
    assert "100 of 101 images, 1 failed" in shown
    assert "and 76 more" in shown
    assert "<script>" not in shown and "<b>" not in shown
    links = re.findall(r'src="data:image/png;base64,([^"]+)"', shown)
    assert len(links) == notebook.SHOWN
    for link in links:
        with PIL.Image.open(io.BytesIO(base64.b64decode(link))) as picture:
            assert max(picture.size) == notebook.SIDE
    assert len(shown) < notebook.SHOWN * 40_000


def test_a_farm_that_is_gone_leaves_the_line() -> None:
    with serving() as farm:
        client = Client(farm.url, patience=0.0)
        job = client.job(farm.add(["a heart"])["id"])
    shown = job._repr_html_()
    client.close()
    assert job.id in shown
    assert "<img" not in shown


def test_an_image_shows_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = _png("")
    monkeypatch.setattr(client_stub, "picture", lambda prompt: pixels)
    with serving() as farm, Client(farm.url) as client:
        done, failed = client.job(farm.add(["a heart", "bad"])["id"]).images()
        assert done._repr_png_() == pixels
        assert failed._repr_png_() is None
        farm.lost.add(0)
        assert done._repr_png_() is None, "a notebook shows the text instead"


def test_other_formats_are_shown_as_png(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    PIL.Image.new("RGB", (32, 32), "red").save(out, "WEBP")
    webp = out.getvalue()
    monkeypatch.setattr(client_stub, "picture", lambda prompt: webp)
    with serving() as farm, Client(farm.url) as client:
        (image,) = client.job(farm.add(["a heart"])["id"]).images()
        shown = image._repr_png_()
        assert shown is not None and shown.startswith(b"\x89PNG")
        assert image.content() == webp
