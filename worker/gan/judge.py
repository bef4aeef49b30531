"""The judge: an image encoder trained on hands whose drawings the generator never saw
(`python -m worker.gan.judge`), so that it can say without favour what a picture shows.
Used to evaluate, never to train or to render."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from promptmill import errors
from worker import command
from worker.gan import accelerator, data, jurors, lexicon, lite, precision
from worker.gan.colours import PAINTS
from worker.gan.disguise import disguise, far
from worker.gan.encoder import TextEncoder
from worker.gan.jurors import Jury
from worker.gan.networks import TEXT

SHARPNESS = 20.0  # inverse temperature of the comparison with names, at first
SHARPEST = 80.0
RATE, DECAY, STEEPEST = 2e-3, 0.05, 5.0
DYE = 0.5  # weight of how a picture is coloured, beside 1 for what it shows
KEPT = 6  # steps of the network that it begins as: edges, textures, parts of shapes
LARGER = 2  # times as large as they are, it looks at pictures
AT_ONCE = 32  # pictures, whose first maps the processor can still keep at hand
UNSEEN = 0.2  # the share of features that it does without while it learns
FILE = "judge.safetensors"


class Judge(nn.Module):
    """Pixels [B, 3, 64, 64] in [0, 1] to unit vectors [B, 384], and the features [B, 1280] before
    them, in which distances are measured. It begins as a network that names photographs, of which
    all but the first `KEPT` steps learn on. The vector of a concept (`named`) starts as the text
    encoder's of its name and is learned with the rest: a picture shows the concept whose vector
    is closest. Concepts come first, then the same in skin tones. `colours` makes of features the
    logits [B, 12] of how a picture is coloured: as what it shows is drawn, or dyed in a paint."""

    def __init__(self, names: Tensor, trunk: nn.Sequential | None = None) -> None:
        super().__init__()
        steps = trunk or lite.network()
        self.kept, self.trunk = steps[:KEPT].requires_grad_(False), steps[KEPT:]
        width = lite.width(steps)
        self.scale = nn.BatchNorm1d(width, affine=False)
        self.out = nn.Linear(width, TEXT)
        self.colours = nn.Linear(width, 1 + len(PAINTS))
        self.names = nn.Parameter(names.clone())
        self.sharpness = nn.Parameter(torch.tensor(math.log(SHARPNESS)))

    def train(self, mode: bool = True) -> Judge:
        super().train(mode)
        self.kept.eval()
        return self

    @property
    def named(self) -> Tensor:
        """Unit vectors [C, 384] of all concepts."""
        return F.normalize(self.names, dim=1)

    def features(self, pictures: Tensor) -> Tensor:
        begun = torch.cat([self._begun(part) for part in torch.split(pictures, AT_ONCE)])
        found: Tensor = self.scale(self.trunk(begun).amax((2, 3)).float())
        return found

    @torch.no_grad()
    def _begun(self, pictures: Tensor) -> Tensor:
        large = F.interpolate(pictures * 2 - 1, scale_factor=float(LARGER), mode="bilinear")
        maps: Tensor = self.kept(large.contiguous(memory_format=torch.channels_last))
        return maps

    def forward(self, pictures: Tensor) -> Tensor:
        return self.placed(self.features(pictures))

    def placed(self, features: Tensor) -> Tensor:
        """Unit vectors [B, 384] of features [B, 1280]."""
        return F.normalize(self.out(features).float(), dim=1)

    def likeness(self, vectors: Tensor) -> Tensor:
        """Logits [B, C] of the concepts."""
        return self.sharpness.exp().clamp(max=SHARPEST) * vectors.float() @ self.named.T

    def odds(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Logarithms of how likely pictures show each concept [B, C], and are coloured in each way
        [B, 12]."""
        seen = self.features(pictures)
        named = self.likeness(self.placed(seen)).log_softmax(1)
        return named, self.colours(seen).float().log_softmax(1)


def train(
    judge: Judge,
    shown: Jury,
    *,
    steps: int,
    batch: int,
    smoothing: float = 0.1,
    device: str = "cpu",
    seed: int = 0,
) -> None:
    """Cross-entropy of what disguised pictures show among all names, which are learned, too, and
    of how they are coloured."""
    judge.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    chance = torch.Generator(device).manual_seed(seed)
    begun = list(judge.trunk.parameters())
    new = [judge.names, judge.sharpness, *judge.out.parameters(), *judge.colours.parameters()]
    optimizer = descent(new, begun)
    rates = [group["lr"] for group in optimizer.param_groups]
    pictures, concept, colour, told, weight = (
        getattr(shown, field.name).to(device) for field in fields(shown)
    )
    for step in range(1, steps + 1):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * min(1.0, step / 100) * (1 - step / steps) + 1e-6
        rows = torch.multinomial(weight, batch, True, generator=chance)
        seen = far(disguise(pictures[rows].float() / 255, chance, told[rows]), chance)
        with precision.autocast(device):
            features = judge.features(seen)
            left = torch.rand(features.shape, generator=chance, device=device) >= UNSEEN
            features = features * left / (1 - UNSEEN)
            vectors, dyed = judge.placed(features), judge.colours(features)
        loss = F.cross_entropy(judge.likeness(vectors), concept[rows], label_smoothing=smoothing)
        loss = loss + DYE * F.cross_entropy(dyed.float(), colour[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(judge.parameters(), STEEPEST)
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step}: loss {loss.item():.3f}", flush=True)
    judge.cpu().eval().requires_grad_(False)


def descent(new: Sequence[nn.Parameter], begun: Sequence[nn.Parameter] = ()) -> torch.optim.AdamW:
    """Matrices decay; biases, norms and the sharpness do not. begun: what was taught before, and
    learns at a quarter of the rate."""
    groups = [
        {"params": some, "weight_decay": decay, "lr": rate}
        for whole, rate in ((new, RATE), (begun, RATE / 4))
        for some, decay in (
            ([one for one in whole if one.ndim > 1], DECAY),
            ([one for one in whole if one.ndim <= 1], 0.0),
        )
        if some
    ]
    return torch.optim.AdamW(groups, RATE, (0.9, 0.99))


def load(folder: Path) -> Judge:
    """The judge that `save` kept; raises `errors.Error` when there is none of this form."""
    try:
        state = {name: value.float() for name, value in load_file(folder / FILE).items()}
        judge = Judge(state["names"])
        judge.load_state_dict(state)
    except (OSError, SafetensorError, LookupError, RuntimeError) as problem:
        raise errors.Error(
            f"no judge in {folder}: make one with python -m worker.gan.judge --out {folder}"
        ) from problem
    judge.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return judge.eval().requires_grad_(False)


def save(network: nn.Module, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, path)


def parser(description: str, *, out: Path, steps: int, batch: int) -> argparse.ArgumentParser:
    """What a training command takes."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--data", type=Path, default=Path("data/emoji"))
    made.add_argument("--out", type=Path, default=out)
    made.add_argument("--encoder", type=Path, default=Path("worker/weights/emoji-gan"))
    made.add_argument("--steps", type=int, default=steps)
    made.add_argument("--batch", type=int, default=batch)
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    described = "Train the judge on hands that the generator never saw."
    taken = parser(described, out=Path("data/judge"), steps=1500, batch=128)
    accelerator.add_device(taken)
    taken.add_argument("--threads", type=int, default=1)
    options = taken.parse_args(arguments)
    torch.set_num_threads(options.threads)
    encoder = TextEncoder(options.encoder)
    sets = [lexicon.lessons(options.data, encoder, seed=1, name=name) for name in data.SETS]
    concepts = [concept for each in sets for concept in each.pictures.concepts]
    begun = lite.taught(options.data / "packages")
    jury = jurors.jury(options.data, concepts)
    torch.manual_seed(0)
    judge = Judge(torch.cat([each.texts.named for each in sets]), begun)
    train(judge, jury, steps=options.steps, batch=options.batch, device=options.device)
    save(judge, options.out / FILE)
    print(json.dumps({"concepts": len(judge.named), "pictures": len(jury.pictures)}))


if __name__ == "__main__":
    command.run(main)
