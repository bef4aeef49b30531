"""The scorer's training: learns, goes on where it was stopped, ships what it learned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from worker import tiny
from worker.gan import eye, lexicon, score, scorer, trunk
from worker.gan.encoder import TextEncoder
from worker.gan.lexicon import Lessons
from worker.gan.scorer import Course
from worker.generators import gan

SMALL = (8, 16, 16)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Lessons:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("shapes")
    tiny.build(folder)
    return lexicon.lessons(folder, TextEncoder(gan.WEIGHTS), seed=1)


@pytest.fixture(scope="module")
def shown(given: Lessons) -> Course:
    """What a network that draws its condition's mean in grey would give to learn from."""

    def draw(conditions: torch.Tensor) -> torch.Tensor:
        grey = (conditions.mean(1) * 255).abs().clamp(0, 255).to(torch.uint8)
        return grey[:, None, None, None].expand(-1, 3, 64, 64)

    return scorer.course(given, [draw], share=0.25)


def test_it_learns_nine_concepts_of_ten_from_real_and_drawn_pictures(
    given: Lessons, shown: Course
) -> None:
    concepts = len(given.pictures.concepts)
    assert shown.taught.tolist() == [n for n in range(concepts) if n % 10 != 5]
    real, drawn = 3 * len(shown.taught), 3 * len(scorer.SEEDS) * len(shown.taught)
    assert len(shown.pictures) == real + drawn and shown.pictures.shape[1:] == (3, 32, 32)
    assert shown.odds[real:].sum().item() == pytest.approx(0.25)
    for number, near in enumerate(shown.near.tolist()):
        assert number not in near and len(set(near)) == len(near)
    assert torch.equal(shown.concept.bincount(), torch.full((len(shown.taught),), 9))


def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    shown: Course, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorer, "SAVE_EVERY", 3)
    whole = scorer.teach(shown, tmp_path / "one", steps=6, batch=16, widths=SMALL)
    lesson, seen = scorer.lesson, []

    def stopping(of: Course, size: int, step: int) -> scorer.Batch:
        seen.append(step)
        if seen == [0, 1, 2, 3, 4]:
            raise KeyboardInterrupt
        return lesson(of, size, step)

    monkeypatch.setattr(scorer, "lesson", stopping)
    with pytest.raises(KeyboardInterrupt):
        scorer.teach(shown, tmp_path / "two", steps=6, batch=16, widths=SMALL)
    resumed = scorer.teach(shown, tmp_path / "two", steps=6, batch=16, widths=SMALL)
    assert seen == [0, 1, 2, 3, 4, 3, 4, 5]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_it_learns_to_tell_texts_apart_and_ships_the_same_function(
    shown: Course, given: Lessons, tmp_path: Path
) -> None:
    real = Course(
        shown.pictures, shown.concept, (torch.arange(len(shown.pictures)) < 3 * len(shown.taught))
        .float(), shown.dyeable, shown.taught, shown.near, given,
    )  # fmt: skip
    network = scorer.teach(real, tmp_path, steps=80, batch=32, widths=eye.WIDTHS)
    scorer.save(network, tmp_path, shown)
    shipped = score.Scorer(tmp_path, trunk=trunk.usual)
    pictures = given.pictures.pictures.permute(0, 2, 3, 1).contiguous().numpy()
    named = given.texts.named.numpy()
    right = shipped(pictures, named[given.pictures.concept], [1] * len(pictures))
    wrong = shipped(pictures, named[(given.pictures.concept + 4) % 12], [1] * len(pictures))
    assert np.mean(right) > np.mean(wrong) + 0.2
    cells = torch.from_numpy(score.cells(score.subjects(pictures, [1] * len(pictures))))
    views = cells.float() / 127.5 - 1
    with torch.inference_mode():
        plain = torch.sigmoid(network(views, given.texts.named[given.pictures.concept]))
    assert np.allclose(right, plain.numpy(), atol=0.02)
