"""The text encoder that ships: any script, the same bits in any company, and what its
file must hold."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from promptmill import errors
from worker.gan import corpus, distil, encoder, student_encoder, words
from worker.generators.gan import WEIGHTS

PROMPTS = [
    "", " ", "a", "red heart", "a cat and a dog", "火箭", "りんご", "сердце", "rotes Herz",
    "🚀", "👩🏽‍🚀", "🇫🇷", "word " * 300, "x" * 5000, "\0\n\t", "naïve café", "คนหน้ายิ้ม",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """Small tensors gain nothing from threads, and lose much beside other processes."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def shipped() -> encoder.TextEncoder:
    return encoder.TextEncoder(WEIGHTS)


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads each text anew."""
    monkeypatch.setattr(encoder, "RECENT", 0)


def test_words_of_any_script() -> None:
    assert words.words("Two  RED-hearts!") == ("two", "red", "hearts")
    assert words.words("👍 and 🇩🇪❤️") == ("👍", "and", "🇩🇪", "❤")
    assert words.words("👍🏽") == ("👍", "medium", "skin", "tone")
    assert words.words("👩🏿‍🚀!") == ("👩", "dark", "skin", "tone", "🚀")
    assert words.words("หน้าสับสน") == ("หน้าสับสน",)
    assert words.words("!?") == ()
    assert len(words.words("word " * 1000)) == words.MOST


def test_a_text_without_what_says_how_it_looks() -> None:
    assert words.bare("A yellow Star, please!") == "a star please"
    assert [words.bare(text) for text in ("star", "red", "", "dark skinned hand", "👍🏿")] == [
        ""
    ] * 5


def test_pieces_are_rows_of_the_table_and_start_with_the_word() -> None:
    for word in ("heart", "火箭", "a"):
        rows = words.pieces(word)
        assert rows and len(set(rows)) == len(rows)
        assert all(0 <= row < words.BUCKETS for row in rows)
    assert set(words.pieces("heart")) & set(words.pieces("hearts"))


def test_vectors_have_unit_length_whatever_the_prompt(shipped: encoder.TextEncoder) -> None:
    made = shipped.encode(PROMPTS)
    assert made.shape == (len(PROMPTS), 384) and made.dtype == np.float32
    assert np.allclose(np.linalg.norm(made, axis=1), 1, atol=1e-5)


@pytest.mark.usefixtures("forgetful")
def test_a_vector_is_the_same_bits_in_any_company(shipped: encoder.TextEncoder) -> None:
    alone = {prompt: shipped.encode([prompt])[0].tobytes() for prompt in PROMPTS}
    chance = random.Random(0)
    for size in (2, 3, 8, 31):
        batch = chance.choices(PROMPTS, k=size)
        for prompt, vector in zip(batch, shipped.encode(batch), strict=True):
            assert vector.tobytes() == alone[prompt]


def test_what_is_remembered_is_bounded_and_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    made = encoder.TextEncoder(WEIGHTS)
    fresh = made.encode(PROMPTS)
    read: list[str] = []
    pool = made._pool
    monkeypatch.setattr(made, "_pool", lambda prompt: read.append(prompt) or pool(prompt))
    assert np.array_equal(made.encode([*PROMPTS, PROMPTS[3]]), [*fresh, fresh[3]])
    assert read == []
    monkeypatch.setattr(encoder, "RECENT", 4)
    made.encode(["another", "another"])
    assert read == ["another"]
    assert list(made._recent) == [*PROMPTS[-3:], "another"]
    assert np.array_equal(made.encode(PROMPTS), fresh)


def test_languages_land_where_the_english_name_lands(shipped: encoder.TextEncoder) -> None:
    names = ["red heart", "rocket", "dog face", "pizza", "birthday cake", "red apple"]
    asked = ["rotes Herz", "火箭", "🐶", "pizza", "gâteau d’anniversaire", "りんご"]
    close = shipped.encode(asked) @ shipped.encode(names).T
    assert close.argmax(1).tolist() == list(range(len(names)))


def test_what_is_saved_is_what_was_trained(tmp_path: Path) -> None:
    torch.manual_seed(0)
    student = student_encoder.Student()
    texts = [student_encoder.pieces(prompt) for prompt in PROMPTS]
    with pytest.raises(ValueError, match="settled"):
        student_encoder.save(student, tmp_path)
    student.settle(texts)
    student_encoder.save(student, tmp_path)
    with torch.inference_mode():
        wanted = student(texts).numpy()
    assert np.allclose(encoder.TextEncoder(tmp_path).encode(PROMPTS), wanted, atol=1e-2)


def test_a_student_learns_its_lessons() -> None:
    torch.manual_seed(0)
    student = student_encoder.Student()
    targets = torch.nn.functional.normalize(torch.randn(len(PROMPTS), 384), dim=1)
    texts = [student_encoder.pieces(prompt) for prompt in PROMPTS]
    given = distil.Lessons(texts, targets, torch.ones(len(PROMPTS)), len(PROMPTS), [[]])
    before = (student(texts) * targets).sum(1).mean().item()
    distil.teach(student, given, distil.Plan(batch=32), steps=60, rate=3e-3)
    assert (student(texts) * targets).sum(1).mean().item() > before + 0.2


@pytest.mark.parametrize("content", [None, b"", b"not safetensors"])
def test_a_bad_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / encoder.FILE).write_bytes(content)
    with pytest.raises(errors.Error, match=encoder.FILE):
        encoder.TextEncoder(tmp_path)


def test_a_student_goes_on_from_the_shipped_encoder(shipped: encoder.TextEncoder) -> None:
    usual = [prompt for prompt in PROMPTS if len(prompt) < 500]  # longer ones are clipped
    with torch.inference_mode():
        made = student_encoder.load(WEIGHTS)(
            [student_encoder.pieces(prompt) for prompt in usual]
        ).numpy()
    assert (made * shipped.read(usual)).sum(1).min() > 0.99


def test_words_around_a_thing_change_little_of_what_it_means(shipped: encoder.TextEncoder) -> None:
    names = ["rocket", "pizza", "red heart", "umbrella", "penguin"]
    plain = shipped.encode(names)
    asked = [frame.format(f"a {name}") for frame in corpus.HELD_FRAMES for name in names]
    close = shipped.encode(asked) @ plain.T
    assert (close.argmax(1) == np.tile(np.arange(len(names)), len(corpus.HELD_FRAMES))).all()
