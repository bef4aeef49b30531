"""A classifier that learns fifty things from rendered pictures alone, and how well it knows real
pictures of a vendor that the generator never saw (OpenMoji, fetched for this alone), beside
one that learns from real pictures of other vendors, and chance. Needs a running farm and the
extra `train`.

    promptmill up
    python -m worker.gan.data --out data/emoji
    python -m examples.synthetic_dataset --data data/emoji --out synthetic-out
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from promptmill import errors
from promptmill.client import Client
from worker.gan import common, data, jurors
from worker.gan.disguise import disguise, half

WIDTHS = (16, 32, 64, 128)


def render(folder: Path, each: int) -> tuple[Tensor, Tensor]:
    """Has the farm draw every prompt `each` times; pictures uint8 [N, 3, 64, 64] and classes."""
    with Client() as client:
        job = client.submit(
            [{"prompt": prompt, "n": each} for prompt in common.FIFTY], name="synthetic-dataset"
        )
        print(f"{job.id}: {job.counts.total:,} pictures", file=sys.stderr)
        job.wait()
        job.download(folder)
    number = {prompt: n for n, prompt in enumerate(common.FIFTY)}
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    pictures = [np.asarray(Image.open(folder / line["file_name"])) for line in lines]
    stack = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
    return stack, torch.tensor([number[line["text"]] for line in lines])


def of_classes(pictures: Tensor, concept: Tensor, chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The pictures of the chosen concepts, and their places among those."""
    place = {number: n for n, number in enumerate(chosen)}
    rows = [row for row, number in enumerate(concept.tolist()) if number in place]
    return pictures[rows], torch.tensor([place[int(concept[row])] for row in rows])


def classifier(classes: int) -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in zip((3, *WIDTHS), WIDTHS, strict=False):
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after)]
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(4 * WIDTHS[-1], classes))


def learn(pictures: Tensor, classes: Tensor, *, steps: int, seed: int) -> nn.Module:
    """A classifier of pictures [N, 3, 64, 64], seen at half size and disguised."""
    torch.manual_seed(seed)
    network = classifier(int(classes.max()) + 1).train()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    chance = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(len(pictures), (64,), generator=chance)
        seen = disguise(half(pictures[rows].float() / 255), chance)
        seen = seen.to(memory_format=torch.channels_last)
        loss = F.cross_entropy(network(seen), classes[rows], label_smoothing=0.1)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return network.eval()


@torch.inference_mode()
def known(network: nn.Module, pictures: Tensor, classes: Tensor) -> dict[str, float]:
    """Share of pictures whose class comes first, and among the first five."""
    ranked = network(half(pictures.float() / 255)).argsort(1, descending=True)
    hit = ranked == classes[:, None]
    return {n: hit[:, :most].any(1).float().mean().item() for n, most in (("top1", 1), ("top5", 5))}


def judged(
    taught: tuple[Tensor, Tensor], asked: tuple[Tensor, Tensor], *, steps: int, tries: int
) -> dict[str, float]:
    """Medians over classifiers that start from different seeds."""
    told = []
    for seed in range(tries):
        told.append(known(learn(*taught, steps=steps, seed=seed), *asked))
        print(f"taught by {len(taught[0]):,} pictures: {told[-1]}", file=sys.stderr)
    return {name: round(statistics.median(one[name] for one in told), 3) for name in told[0]}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--data", type=Path, default=Path("data/emoji"))
    parser.add_argument("--out", type=Path, default=Path("synthetic-out"))
    parser.add_argument("--each", type=int, default=40, help="pictures of each prompt")
    parser.add_argument("--steps", type=int, default=600, help="of training a classifier")
    parser.add_argument("--tries", type=int, default=3, help="classifiers; their median counts")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        real = data.load(given.data)
        chosen = data.meant(common.FIFTY, real.concepts)
        unseen = of_classes(*jurors.openmoji(given.data, real.concepts), chosen)
        rendered = render(given.out, given.each)
    except (errors.Error, OSError) as problem:
        print(f"promptmill: {problem}", file=sys.stderr)
        return 1
    vendors = of_classes(real.pictures, real.concept, chosen)
    told = {
        "classes": len(chosen),
        "real_pictures_asked": len(unseen[0]),
        "rendered_pictures": len(rendered[0]),
        "taught_by_rendered": judged(rendered, unseen, steps=given.steps, tries=given.tries),
        "real_pictures": len(vendors[0]),
        "taught_by_real": judged(vendors, unseen, steps=given.steps, tries=given.tries),
        "chance": {"top1": 1 / len(chosen), "top5": 5 / len(chosen)},
    }
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
