"""The score that ships: right texts above wrong ones, blind to neighbours, two subjects by the
worse, the same without torch, and the re-rolls that ask for it."""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from promptmill import errors, jobs
from promptmill.jobs import Item
from tests.unit.many_bytes import company, items
from worker.compress import runtime
from worker.gan import abilities, common, pairs, score, trunk, weightfile
from worker.gan.encoder import TextEncoder, by_torch
from worker.generators import gan
from worker.outcomes import Picture
from worker.render import Renderer

NAMES = common.FIFTY
TRUNKS = (trunk.int8, trunk.float32, runtime.trunk)


def item(number: int, prompt: str, seed: int = 3) -> Item:
    return Item(number, number, 0, prompt, seed, 64, 64)


@pytest.fixture(scope="module")
def model() -> gan.EmojiGan:
    made = gan.EmojiGan()
    made.load(device="cpu", quantization="int8")
    return made


@pytest.fixture(scope="module")
def drawn(model: gan.EmojiGan) -> gan.Pixels:
    return np.concatenate([model.generate([item(n, name)]) for n, name in enumerate(NAMES)])


def scores(model: gan.EmojiGan, names: Sequence[str], pixels: gan.Pixels) -> list[float]:
    return model.score([item(n, name) for n, name in enumerate(names)], pixels)


def test_the_area_under_the_curve() -> None:
    assert abilities.auc(torch.tensor([2.0, 3.0]), torch.tensor([0.0, 1.0])) == 1.0
    assert abilities.auc(torch.tensor([0.0, 2.0]), torch.tensor([1.0])) == 0.5
    assert abilities.auc(torch.tensor([1.0]), torch.tensor([1.0])) == 0.5


def test_it_is_small_and_tells_right_names_from_wrong_ones(
    model: gan.EmojiGan, drawn: gan.Pixels
) -> None:
    assert (gan.WEIGHTS / score.FILE).stat().st_size < 1_200_000  # names, too
    right = scores(model, NAMES, drawn)
    wrong = scores(model, [*NAMES[7:], *NAMES[:7]], drawn)
    assert all(0 <= value <= 1 for value in (*right, *wrong))
    assert abilities.auc(torch.tensor(right), torch.tensor(wrong)) > 0.9


def test_a_style_or_an_odd_prompt_is_no_obstacle(model: gan.EmojiGan, drawn: gan.Pixels) -> None:
    plain, styled, odd, empty = scores(
        model, ["rocket", "rocket, twemoji style", "\ud800", ""], drawn[[0] * 4]
    )
    assert plain == styled
    assert 0 <= odd <= 1 and 0 <= empty <= 1


def test_a_score_is_the_same_beside_any_neighbours(model: gan.EmojiGan, drawn: gan.Pixels) -> None:
    names = [f"{name} and a dog" if n % 3 == 0 else name for n, name in enumerate(NAMES)]
    asked = [item(n, name) for n, name in enumerate(names)]
    alone = [model.score([one], drawn[n : n + 1])[0] for n, one in enumerate(asked)]
    assert len(set(alone)) > 25
    for size in (2, 7, 8, 50):
        for at in range(0, 50, size):
            made = model.score(asked[at : at + size], drawn[at : at + size])
            assert made == alone[at : at + size], size
    order = np.random.default_rng(0).permutation(50)
    made = model.score([asked[n] for n in order], drawn[order])
    assert made == [alone[n] for n in order]


def test_many_prompts_have_their_own_scores_on_any_threads(model: gan.EmojiGan) -> None:
    asked = items(48)
    alone = {one.index: model.score([one], model.generate([one]))[0] for one in asked}
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for batch in company(asked, random.Random(threads)):
                made = model.score(batch, model.generate(batch))
                assert made == [alone[one.index] for one in batch]
    finally:
        torch.set_num_threads(1)


def test_of_two_subjects_the_worse_counts(model: gan.EmojiGan) -> None:
    (two,) = model.generate([item(0, "a cat and a dog")])
    cat, dog = model.generate([item(0, "a cat"), item(1, "a dog")])
    left, right = score.subjects(two[None], [2])
    assert np.array_equal(left, pairs.half(cat[None])[0])
    assert np.array_equal(right, pairs.half(model.generate([item(0, "dog")]))[0])
    assert dog.shape == (64, 64, 3)
    scorer = score.Scorer(gan.WEIGHTS, trunk=trunk.usual)
    encoder = TextEncoder(gan.WEIGHTS)
    texts = encoder.encode(["a cat", "dog"])
    each = scorer(np.stack([cat, model.generate([item(0, "dog")])[0]]), texts, [1, 1])
    assert scorer(two[None], texts, [2]) == [min(each)]
    assert scores(model, ["a cat and a dog"], two[None]) == [min(each)]
    assert scores(model, ["a cat and a rocket"], two[None])[0] < min(each)


def test_cells_are_the_pixels_as_the_network_was_taught_them() -> None:
    views = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    tensor = torch.from_numpy(views).permute(0, 3, 1, 2).float() / 255
    wanted = F.pixel_unshuffle(tensor * 2 - 1, 2)
    codes = torch.from_numpy(score.cells(views))
    assert codes.dtype == torch.uint8
    assert torch.allclose(codes.float() / 127.5 - 1, wanted, atol=1e-6)


@pytest.mark.parametrize("made", [trunk.float32, runtime.trunk])
def test_without_int8_or_torch_the_scores_are_nearly_the_same(
    model: gan.EmojiGan, drawn: gan.Pixels, made: Any
) -> None:
    dense = runtime.dense if made is runtime.trunk else by_torch
    scorer = score.Scorer(gan.WEIGHTS, trunk=made, dense=dense)
    texts = TextEncoder(gan.WEIGHTS).encode(NAMES)
    told = scorer(drawn, texts, [1] * len(NAMES))
    assert np.allclose(told, scores(model, NAMES, drawn), atol=3e-2)
    assert [scorer(drawn[n : n + 1], texts[n : n + 1], [1])[0] for n in range(50)] == told


def test_float32_refuses_what_it_could_not_hold() -> None:
    tensors = weightfile.decoded((gan.WEIGHTS / score.FILE).read_bytes())
    tensors["trunk.0.0.weight"] = np.ones((32, 2000, 3, 3), np.float32)
    with pytest.raises(ValueError, match="exactly"):
        trunk.float32(tensors)


def test_sums_that_float32_holds_in_parts_are_the_same_in_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a short training may leave them: weights as great as they get."""
    tensors = weightfile.decoded((gan.WEIGHTS / score.FILE).read_bytes())
    name = [name for name, *_ in score.convolutions(tensors)][-1]
    tensors[f"{name}.weight"] = np.ones_like(tensors[f"{name}.weight"])
    tensors[f"{name}.weight"][:, ::2] = -1
    tensors[f"{name}.bias"][:] = 50
    cells = np.random.default_rng(0).integers(0, 256, (3, score.CELLS, 16, 16), dtype=np.uint8)
    told = trunk.float32(tensors)(cells)
    assert told.any()
    monkeypatch.setattr(trunk.integers, "held", lambda codes, signed: list(codes.chunk(4, 1)))
    assert np.array_equal(trunk.float32(tensors)(cells), told)


def test_it_is_part_of_the_fingerprint(model: gan.EmojiGan, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    shutil.copytree(gan.WEIGHTS, folder)
    content = bytearray((folder / score.FILE).read_bytes())
    content[-1] ^= 1
    (folder / score.FILE).write_bytes(content)
    other = gan.EmojiGan(folder)
    other.load(device="cpu", quantization="int8")
    assert other.fingerprint != model.fingerprint


def test_a_damaged_scorer_is_named(tmp_path: Path) -> None:
    with pytest.raises(errors.Error, match=r"scorer\.safetensors cannot be read"):
        score.Scorer(tmp_path, trunk=trunk.int8)
    for content in (b"", (gan.WEIGHTS / score.FILE).read_bytes()[:-50]):
        (tmp_path / score.FILE).write_bytes(content)
        for made in TRUNKS:
            with pytest.raises(errors.Error, match=r"scorer\.safetensors is damaged"):
                score.Scorer(tmp_path, trunk=made)
    shutil.copyfile(gan.WEIGHTS / "encoder.safetensors", tmp_path / score.FILE)
    for made in TRUNKS:
        with pytest.raises(errors.Error, match=r"scorer\.safetensors is damaged"):
            score.Scorer(tmp_path, trunk=made)
    with pytest.raises(errors.Error, match="not loaded"):
        gan.EmojiGan().score([item(0, "sun")], np.zeros((1, 64, 64, 3), np.uint8))


def test_a_job_gets_the_best_of_its_tries(model: gan.EmojiGan) -> None:
    asked = [
        Item(n, n, 0, name, 100 + n, 64, 64, min_score=2.0, max_rerolls=3)
        for n, name in enumerate((*NAMES[:9], "a cat and a dog"))
    ]
    made = Renderer(model).render("b", asked)
    for wanted, picture in zip(asked, made, strict=True):
        assert isinstance(picture, Picture) and picture.score is not None
        seeds = [wanted.seed, *(jobs.reroll_seed(wanted.seed, k) for k in (1, 2, 3))]
        assert [attempt.seed for attempt in picture.attempts] == seeds
        tried = [item(0, wanted.prompt, seed) for seed in seeds]
        told = model.score(tried, model.generate(tried))
        assert [attempt.score for attempt in picture.attempts] == told
        assert (picture.score, picture.item.seed) == (max(told), seeds[told.index(max(told))])
        assert math.isfinite(picture.score)
    alone = [Renderer(model).render("b", [one])[0] for one in asked]
    assert [one.score for one in alone if isinstance(one, Picture)] == [
        one.score for one in made if isinstance(one, Picture)
    ]
