"""The score: how well a picture shows what a text says, by an image encoder trained on the
vendors' pictures under right and wrong captions (`python -m worker.gan.scorer`). It is small
enough to look at every picture that is rendered. Its weights do not ship yet."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from promptmill import errors
from worker.gan import data, judge, lexicon
from worker.gan.disguise import half
from worker.gan.encoder import TextEncoder
from worker.gan.jurors import Jury
from worker.gan.networks import TEXT

FILE = "scorer.safetensors"
WIDTHS = (32, 64, 96)
ROWS = 8  # the one batch shape that it runs
DIGITS = 4


class Eye(nn.Module):
    """Pixels [B, 3, 64, 64] in [0, 1], seen at half size, to unit vectors [B, 384] in the text
    encoder's space."""

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise((12, *widths)):
            stages += [
                _convolution(inputs, outputs),
                _convolution(outputs, outputs),
                nn.MaxPool2d(2),
            ]
        self.trunk = nn.Sequential(*stages)
        self.out = nn.Linear(widths[-1], TEXT)

    def forward(self, pictures: Tensor) -> Tensor:
        seen = self.trunk(F.pixel_unshuffle(half(pictures) * 2 - 1, 2))
        return F.normalize(self.out(seen.mean((2, 3)) + seen.amax((2, 3))), dim=1)


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class Scorer:
    """Cosine between a picture's vector and its text's, in [-1, 1]. Eight rows at a time,
    the last repeated where some are missing: float kernels choose their order of summation
    by shape, and so a score depends on its own picture and text alone."""

    def __init__(self, folder: Path) -> None:
        """Reads `FILE`; raises `errors.Error` naming it when it is missing or damaged."""
        path = folder / FILE
        self.network = Eye()
        try:
            content = path.read_bytes()
            self.network.load_state_dict(load(content))
        except OSError as problem:
            raise errors.Error(
                f"{path} cannot be read ({problem.strerror}): make it "
                "with python -m worker.gan.scorer"
            ) from problem
        except (SafetensorError, RuntimeError) as problem:
            raise errors.Error(
                f"{path} is damaged: make it with python -m worker.gan.scorer"
            ) from problem
        self.digest = hashlib.sha256(content).hexdigest()
        self.network.float().eval().requires_grad_(False)

    @torch.inference_mode()
    def __call__(self, pictures: Tensor, text: Tensor) -> list[float]:
        """Scores of pictures uint8 [N, 3, 64, 64] under unit texts [N, 384]."""
        parts = zip(torch.split(pictures, ROWS), torch.split(text, ROWS), strict=True)
        return [score for seen, said in parts for score in self._run(seen, said)]

    def _run(self, seen: Tensor, said: Tensor) -> list[float]:
        count = len(seen)
        full = torch.cat([seen, seen[-1:].expand(ROWS - count, *seen.shape[1:])])
        texts = torch.cat([said, said[-1:].expand(ROWS - count, said.shape[1])])
        close = F.cosine_similarity(self.network(full.float() / 255), texts)
        return [round(value, DIGITS) for value in close[:count].tolist()]


def auc(right: Tensor, wrong: Tensor) -> float:
    """The chance that a right pair's score is above a wrong pair's, ties as half: the area
    under the receiver operating characteristic (Hanley and McNeil 1982)."""
    above = (right[:, None] > wrong).float() + 0.5 * (right[:, None] == wrong).float()
    return above.mean().item()


def main(arguments: Sequence[str] | None = None) -> None:
    description = "Train the scorer on the vendors' pictures."
    command = judge.parser(description, out=Path("data/scorer"), steps=2000, batch=64)
    options = command.parse_args(arguments)
    torch.set_num_threads(1)
    given = lexicon.lessons(options.data, TextEncoder(options.encoder), seed=1)
    shown = given.pictures
    taught = shown.concept % data.HELD_EVERY != data.HELD_FIRST
    torch.manual_seed(0)
    network = Eye()
    judge.train(
        network,
        given.texts.named,
        Jury(shown.pictures, shown.concept, taught.float()),
        steps=options.steps,
        batch=options.batch,
        smoothing=0.0,
        device=options.device,
    )
    judge.save(network, options.out / FILE)


if __name__ == "__main__":
    main()
