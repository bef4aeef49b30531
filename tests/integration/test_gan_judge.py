"""The judge: learns what it is shown, knows it from another hand, and is read back the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.unit.test_gan_networks import tiny_lessons
from worker import tiny
from worker.gan import agreement, captions, colours, judge, lite, panel
from worker.gan.disguise import disguise, far
from worker.gan.judge import Judge
from worker.gan.jurors import Jury
from worker.gan.networks import TEXT
from worker.gan.panel import Panel


def small() -> torch.nn.Sequential:
    """A trunk of few weights, that nobody taught."""
    return lite.network([(2, 3, 2, 2, 16), (2, 3, 1, 2, 24), (2, 3, 2, 2, 32)], 64)


def shapes(vendor: int) -> torch.Tensor:
    """Pictures uint8 [4, 3, 32, 32], one of each shape."""
    drawn = [tiny.drawn(shape, (40, 70, 220), vendor) for shape in tiny.SHAPES]
    return torch.stack(list(map(torch.from_numpy, drawn)))[:, :, ::2, ::2]


def dyed_shapes() -> Jury:
    """Each shape as it is drawn and painted red, which is the first of the paints."""
    pictures = shapes(0).permute(0, 2, 3, 1).contiguous().numpy()
    red = torch.from_numpy(colours.painted(pictures, ["red"] * 4)).permute(0, 3, 1, 2)
    dyed = torch.arange(2).repeat_interleave(4)
    concept = torch.arange(4).repeat(2)
    return Jury(torch.cat([shapes(0), red]), concept, dyed, dyed > 0, torch.ones(8))


@pytest.fixture(scope="module")
def taught() -> Judge:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    names = torch.nn.functional.normalize(torch.randn(len(tiny.SHAPES), TEXT), dim=1)
    made = Judge(names, small())
    jury = dyed_shapes()
    judge.train(made, jury, steps=120, batch=16)
    return made


def test_it_knows_another_hand_by_the_name_it_learned(taught: Judge) -> None:
    rank = panel.ranks(Panel([taught]).vectors(shapes(1)), taught.named, torch.arange(4))
    assert (rank == 0).sum() >= 3, rank  # chance: one
    assert torch.allclose(taught.named.norm(dim=1), torch.ones(4))


def test_it_knows_what_is_dyed_from_what_is_not(taught: Judge) -> None:
    jury = dyed_shapes()
    rank = Panel([taught]).dyed_ranks(jury.pictures, jury.concept, jury.colour)
    assert (rank == 0).sum() >= 7, rank  # of 48 names in paints
    other = Panel([taught]).dyed_ranks(jury.pictures, jury.concept, 1 - jury.colour)
    assert (other > rank).sum() >= 7


def test_it_is_read_back_as_it_was_saved(taught: Judge, tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = Judge(torch.randn(5, TEXT))
    judge.save(made.eval(), tmp_path / judge.FILE)
    seen = shapes(2)
    one, two = Panel([made]), panel.read([tmp_path, tmp_path])
    assert torch.allclose(one.vectors(seen).repeat(1, 2), 2**0.5 * two.vectors(seen), atol=1e-5)
    assert torch.allclose(one.named @ one.named.T, two.named @ two.named.T, atol=1e-5)
    assert two.features(seen).shape == (4, 2 * lite.FEATURES)


def test_some_pictures_are_seen_from_afar_and_the_others_as_they_are() -> None:
    pictures = torch.rand(400, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    seen = far(pictures, torch.Generator().manual_seed(1))
    changed = (seen != pictures).flatten(1).any(1)
    assert 60 < changed.sum() < 140
    rough = (pictures[changed, ..., 1:] - pictures[changed, ..., :-1]).abs().mean()
    assert (seen[changed, ..., 1:] - seen[changed, ..., :-1]).abs().mean() < rough / 2


def test_a_disguise_is_another_picture_and_the_seed_decides_which() -> None:
    pictures = shapes(0).float().div(255).repeat(16, 1, 1, 1)
    one, again, other = (
        disguise(pictures, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert one.shape == pictures.shape and one.amin() >= 0 and one.amax() <= 1
    same = (one == pictures).flatten(1).all(1).float().mean().item()
    assert 0 < same < 0.4


def test_judges_look_at_a_drawing_in_several_sizes(taught: Judge) -> None:
    black = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    looked: list[torch.Tensor] = []
    hook = taught.register_forward_pre_hook(lambda _, given: looked.append(given[0]))
    Panel([taught]).vectors(black)
    hook.remove()
    dark = [(1 - one).mean().item() for one in looked]
    assert dark == pytest.approx([size**2 for size in panel.SIZES], abs=0.03)
    assert looked[0].amax() == 0 and all(one[:, :, 0].amin() == 1 for one in looked[1:])


def test_colours_that_tell_what_is_shown_change_little() -> None:
    pictures = torch.rand(300, 3, 16, 16, generator=torch.Generator().manual_seed(0)) / 2
    told = torch.arange(300) % 2 == 0
    seen = disguise(pictures, torch.Generator().manual_seed(1), told)
    moved = (seen.mean((2, 3)) - pictures.mean((2, 3))).std(1)
    assert moved[told].mean() < 0.6 * moved[~told].mean()


def test_a_set_has_no_frechet_distance_from_itself() -> None:
    torch.manual_seed(0)
    features = torch.randn(200, 8)
    assert agreement.frechet(features, features) == pytest.approx(0, abs=1e-6)
    assert agreement.frechet(features, features + 1) == pytest.approx(8, rel=1e-3)


def test_subjects_in_tones_are_judged_among_all_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture's number is its colour; the second of the two in tones is held out."""
    given = tiny_lessons()
    first = len(given.pictures.concepts)
    names = torch.eye(first + 2, TEXT)
    seen = Panel([Judge(names, small())])
    one, two = given.pictures.concepts
    pictures = replace(
        given.pictures,
        concepts=(one, replace(two, weight=0.0)),
        pictures=given.pictures.concept[:, None, None, None].add(first).to(torch.uint8),
    )
    toned = replace(given, pictures=pictures)
    monkeypatch.setattr(seen, "vectors", lambda shown: names[shown[:, 0, 0, 0].long()])
    called = [captions.names(each.label, ())[0] for each in (one, two)]

    def drawn(most: int, prompts: Sequence[str]) -> torch.Tensor:
        plain = [captions.parse(prompt)[0] for prompt in prompts]
        numbers = [min(first + called.index(name), most) for name in plain]
        return torch.tensor(numbers)[:, None, None, None]

    monkeypatch.setattr(agreement, "pictures", lambda _, __, asked: drawn(first + 1, asked))
    told = agreement.tones(lambda given: given, seen, given, toned)
    assert told["tone_rank1"] == told["held_tone_rank1"] == told["real_held_tone_rank1"] == 1
    monkeypatch.setattr(agreement, "pictures", lambda _, __, asked: drawn(first, asked))
    told = agreement.tones(lambda given: given, seen, given, toned)
    assert (told["tone_rank1"], told["held_tone_rank1"], told["held_tone_rank5"]) == (1, 0, 1)


def test_forms_of_a_generator_are_asked_for_the_same_pictures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(agreement, "frechet", lambda made, real: float(len(made)))
    given = tiny_lessons()
    seen = Panel([Judge(given.texts.named, small()).eval().requires_grad_(False)])
    shown: list[torch.Tensor] = []

    def draw(conditions: torch.Tensor) -> torch.Tensor:
        shown.append(conditions)
        return torch.rand(len(conditions), 3, 64, 64)

    told = agreement.compared({"one": draw, "other": draw}, seen, given)
    assert torch.equal(*shown) and list(told) == ["one", "other"]
    assert 0 <= told["one"]["rank5"] <= 1 and told["one"]["frechet"] == len(shown[0])
    agreement.compared({"one": draw}, seen, given, every=2)
    assert len(shown[2]) == -(-len(shown[0]) // 2)
