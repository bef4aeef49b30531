"""The networks, the views and int8, on a small fresh generator."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from promptmill import errors
from worker.gan import (
    batches,
    folding,
    integers,
    lexicon,
    quantize,
    train,
    validation,
    views,
    weights,
)
from worker.gan.checkpoint import Checkpoint
from worker.gan.data import Concept, Dataset
from worker.gan.encoder import TextEncoder
from worker.gan.networks import (
    NOISE,
    TEXT,
    VENDORS,
    Discriminator,
    Generator,
    Widths,
    condition,
    vendor_code,
)
from worker.generators.gan import WEIGHTS

SMALL = Widths(hidden=64, at4=64, at8=32, at16=32, at32=32, detail=32)


def batch(count: int, seed: int = 0) -> dict[str, Tensor]:
    chance = torch.Generator().manual_seed(seed)
    text = torch.nn.functional.normalize(torch.randn(count, TEXT, generator=chance), dim=1)
    return {
        "text": text,
        "vendor": torch.arange(count) % 3,
        "noise": torch.randn(count, NOISE, generator=chance),
    }


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """Small tensors gain nothing from threads, and lose much beside other processes."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def trained() -> Generator:
    """A small generator whose batch-norm statistics have moved off their start."""
    torch.manual_seed(0)
    generator = Generator(SMALL).train()
    for seed in range(3):
        generator(condition(**batch(16, seed)))
    return generator.eval().requires_grad_(False)


def test_a_condition_has_even_variance_and_names_the_vendor() -> None:
    made = condition(**batch(64))
    assert made.shape == (64, 416)
    assert made[:, :TEXT].std().item() == pytest.approx(1, abs=0.05)
    assert made[:, -NOISE:].abs().max() <= 3
    codes = vendor_code(torch.tensor([0, 1, 2]))
    assert codes.shape == (3, 16) and len({tuple(code.tolist()) for code in codes}) == 3


def test_shapes_of_both_players(trained: Generator) -> None:
    given = batch(3)
    made = trained(condition(**given))
    assert made.shape == (3, 3, 64, 64)
    plain, headed = Discriminator(16), Discriminator(16, 5)
    assert plain(made, given["text"], given["vendor"]).logit.shape == (3,)
    verdict = headed(made, given["text"], given["vendor"])
    assert verdict.logit.shape == (3,) and verdict.names.shape == (3, 5)
    head = {"names.weight", "names.bias"}
    assert headed.state_dict().keys() - plain.state_dict().keys() == head


def test_folding_keeps_the_function(trained: Generator) -> None:
    conditions = condition(**batch(4))
    plain = folding.fold(trained)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in plain.modules())
    assert torch.allclose(plain(conditions), trained(conditions), atol=1e-5, rtol=1e-4)


def test_int8_is_close_to_float_and_blind_to_the_batch(trained: Generator) -> None:
    plain = folding.fold(trained)
    ranges = quantize.observe(plain, [condition(**batch(8, seed)) for seed in (4, 5)])
    small = integers.IntegerGenerator(plain, ranges)
    conditions = condition(**batch(32, 6))
    together = small(conditions)
    exact = (plain(conditions).clamp(0, 1) * 255).round()
    error = (together.float() - exact).square().mean().item()
    assert 10 * math.log10(255**2 / error) > 35
    for size in (1, 2, 3, 7, 8, 16):
        parts = torch.cat([small(part) for part in torch.split(conditions, size)])
        assert torch.equal(parts, together), size
    order = torch.randperm(32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(small(conditions[order]), together[order])


def test_row_by_row_is_blind_to_the_batch(trained: Generator) -> None:
    plain = folding.fold(trained)
    rows = quantize.FloatGenerator(plain, quantize.observe(plain, [condition(**batch(4))]))
    conditions = condition(**batch(5))
    assert torch.equal(rows(conditions)[3:4], rows(conditions[3:4]))


def test_a_neutral_view_changes_nothing_and_others_do() -> None:
    pictures = torch.rand(2, 3, 64, 64)
    still = views.view(pictures, torch.zeros(2, NOISE))
    assert torch.allclose(still, pictures, atol=1e-4, rtol=0)
    moved = views.view(pictures, torch.ones(2, NOISE))
    assert (moved - pictures).abs().mean() > 0.05


def test_what_a_view_moves_in_is_white() -> None:
    black = torch.zeros(1, 3, 64, 64)
    knobs = torch.zeros(1, NOISE)
    knobs[0, 0] = 9.0
    assert views.view(black, knobs)[0, :, :, -1].min() > 0.9


def test_augmentation_is_the_identity_where_chance_says_so() -> None:
    pictures = torch.rand(2, 3, 16, 16)
    seen = views.augment(
        pictures, chance=torch.tensor([0.9, 0.1]), shift=torch.ones(2, 2), light=torch.ones(2)
    )
    assert torch.allclose(seen[0], pictures[0])
    assert not torch.equal(seen[1], pictures[1])


def tiny_lessons() -> lexicon.Lessons:
    chance = torch.Generator().manual_seed(0)
    text = torch.nn.functional.normalize(torch.randn(8, TEXT, generator=chance), dim=1)
    concepts = tuple(
        Concept(name, f"1F60{n}", (name,), 1.0) for n, name in enumerate(("one", "two"))
    )
    pictures = Dataset(
        pictures=torch.randint(0, 256, (6, 3, 64, 64), dtype=torch.uint8, generator=chance),
        concept=torch.tensor([0, 0, 0, 1, 1, 1]),
        vendor=torch.tensor([0, 1, 2, 0, 1, 2]),
        weight=torch.ones(6),
        concepts=concepts,
    )
    texts = lexicon.Lexicon(
        text=text[:6],
        spans=torch.tensor([[0, 3], [3, 3]]),
        odds=torch.ones(6),
        named=text[[0, 3]],
        around=text[6:],
    )
    return lexicon.Lessons(pictures, texts, TextEncoder(WEIGHTS))


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    plan, given = batches.Plan(batch=4), tiny_lessons()
    first, again = batches.draw(given, plan, 7), batches.draw(given, plan, 7)
    assert torch.equal(first.pictures, again.pictures) and torch.equal(first.text, again.text)
    assert not torch.equal(first.noise, batches.draw(given, plan, 8).noise)
    assert torch.allclose(first.text.norm(dim=1), torch.ones(4))


def test_the_rate_rises_holds_and_falls() -> None:
    plan = batches.Plan(steps=1000, adversarial=900, rate=1.0)
    rates = [train.rate_at(plan, step) for step in (0, 500, 850, 950)]
    assert rates[0] == pytest.approx(0.005) and rates[1] == 1.0
    assert 1.0 > rates[2] > rates[3] > 0


def test_a_checkpoint_comes_back_whole(tmp_path: Path) -> None:
    plan, given = batches.Plan(batch=2), tiny_lessons()
    state = Checkpoint.fresh(1, rate=1e-3, critic_rate=1e-3, widths=SMALL, critic_width=16)
    train.regress(state, batches.draw(given, plan, 0))
    train.compete(state, batches.draw(given, plan, 1), plan)
    state.step = 2
    state.follow(0.5)
    state.save(tmp_path)
    other = Checkpoint.fresh(9, rate=1e-3, critic_rate=1e-3, widths=SMALL, critic_width=16)
    other.restore(tmp_path)
    assert other.step == 2
    for run in (state, other):
        train.compete(run, batches.draw(given, plan, 2), plan)
    for mine, theirs in zip(
        state.generator.parameters(), other.generator.parameters(), strict=True
    ):
        assert torch.equal(mine, theirs)


def test_a_run_goes_on_from_shipped_weights(tmp_path: Path, trained: Generator) -> None:
    plain = folding.fold(trained)
    state = Checkpoint.fresh(1, rate=1e-3, critic_rate=1e-3, critic_width=16, start=plain)
    before = [value.clone() for value in state.generator.parameters()]
    train.regress(state, batches.draw(tiny_lessons(), batches.Plan(batch=2), 0))
    assert any(
        not torch.equal(a, b) for a, b in zip(before, state.generator.parameters(), strict=True)
    )
    assert not any(value.requires_grad for value in plain.parameters())


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    state = Checkpoint.fresh(1, rate=1e-3, critic_rate=1e-3, widths=SMALL, critic_width=16)
    (tmp_path / "state.safetensors").write_bytes(b"not tensors")
    (tmp_path / "state.json").write_text('{"step": 1}')
    with pytest.raises(errors.Error, match="cannot resume from"):
        state.restore(tmp_path)


def test_a_run_without_the_head_does_not_go_on_with_it(tmp_path: Path) -> None:
    given = {"rate": 1e-3, "critic_rate": 1e-3, "widths": SMALL, "critic_width": 16}
    Checkpoint.fresh(1, **given).save(tmp_path)
    headed = Checkpoint.fresh(1, **given, names=2)
    with pytest.raises(errors.Error, match=r"whose critic differs: .*names\.weight") as told:
        headed.restore(tmp_path)
    assert "\n" not in str(told.value)


def test_shipped_weights_come_back(tmp_path: Path, trained: Generator) -> None:
    plain = folding.fold(trained)
    ranges = quantize.observe(plain, [condition(**batch(8))])
    weights.write(tmp_path, plain, ranges, step=3)
    shipped = weights.read(tmp_path)
    assert shipped.ranges == ranges
    for name, value in shipped.generator.state_dict().items():
        assert torch.equal(value, plain.state_dict()[name].half().float()), name


def test_weights_kept_as_codes_are_half_as_large_and_draw_the_same_in_int8(
    tmp_path: Path, trained: Generator
) -> None:
    plain = folding.fold(trained)
    ranges = quantize.observe(plain, [condition(**batch(8))])
    weights.write(tmp_path / "half", plain, ranges, step=3)
    weights.write(tmp_path / "codes", plain, ranges, step=3, coded=True)
    size, coded = ((tmp_path / name / weights.NETWORK).stat().st_size for name in ("half", "codes"))
    assert coded < 0.6 * size
    conditions = condition(**batch(8, 3))
    made = integers.IntegerGenerator(plain, ranges)(conditions)
    shipped = weights.read(tmp_path / "codes")
    again = integers.IntegerGenerator(shipped.generator, shipped.ranges)(conditions)
    assert (made.int() - again.int()).abs().max() <= 1


def test_a_range_ignores_the_few_that_lose_nothing_when_cut(trained: Generator) -> None:
    ranges = quantize.observe(folding.fold(trained), [condition(**batch(4))])
    assert set(ranges) == set(quantize.STAGES)
    assert all(low <= 0 < high for low, high in ranges.values())
    assert ranges["input"][1] <= 6 and ranges["map"][0] == 0


def test_adapting_makes_up_for_narrow_ranges(trained: Generator) -> None:
    plain = folding.fold(trained)
    batches = [condition(**batch(4, seed)) for seed in range(6)]
    wide = quantize.observe(plain, batches[:1])
    narrow = {stage: (low, high / 2) for stage, (low, high) in wide.items()}

    def error(network: Generator) -> float:
        made = quantize.clipped(network, narrow)(batches[0]).clamp(0, 1)
        return (made - plain(batches[0]).clamp(0, 1)).abs().mean().item()

    adapted = quantize.adapt(plain, narrow, batches)
    assert error(adapted) < error(plain)


def test_the_report_finds_what_is_drawn_perfectly() -> None:
    given = tiny_lessons()

    class Perfect(torch.nn.Module):
        def forward(self, conditions: Tensor) -> Tensor:
            text = conditions[:, :TEXT] / TEXT**0.5
            concept = torch.cdist(text, given.texts.named).argmin(1)
            vendor = torch.cdist(conditions[:, TEXT:-NOISE], vendor_code(torch.arange(3)))
            return given.pictures.pictures[concept * 3 + vendor.argmin(1)].float() / 255

    told = validation.report(Perfect(), given)
    assert told["psnr"] > 60
    assert {told[f"found_{vendor}"] for vendor in VENDORS} == {1.0}


def test_tiles_lie_in_reading_order() -> None:
    pictures = torch.arange(4).reshape(4, 1, 1, 1).expand(4, 2, 2, 3).numpy().astype("uint8")
    assert validation.tile(pictures, 2)[::2, ::2, 0].tolist() == [[0, 1], [2, 3]]
