"""The fifty common things by which the model is judged, drawn by a running farm with the first
seed and laid out as in the model card (docs/models/emoji-gan-fifty.png).

    promptmill up
    python -m examples.fifty --out fifty.png
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from promptmill import errors
from promptmill.client import Client
from worker import command
from worker.gan import common, validation

MODEL, SEED = "emoji-gan", 0
COLUMNS = 10


def rendered(prompts: Sequence[str]) -> NDArray[np.uint8]:
    """The farm's pictures [N, 64, 64, 3] of the prompts, each with the first seed. Raises
    `errors.Error` when one is not done."""
    rows = [{"prompt": prompt, "seed": SEED} for prompt in prompts]
    with Client() as client:
        job = client.submit(rows, model=MODEL, name="fifty")
        print(f"{job.id}: {job.counts.total} pictures of {job.data['model']}", file=sys.stderr)
        job.wait()
        if job.counts.done < len(prompts):
            raise errors.Error(
                f"{job.counts.done} of {len(prompts)} are done, see: promptmill show {job.id}"
            )
        files = [job.content(index) for index in range(len(prompts))]
    return np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("fifty.png"))
    given = parser.parse_args(arguments)
    made = rendered(common.FIFTY)
    validation.save(made, COLUMNS, given.out)
    print(f"all {len(made)} are done: {given.out}")


if __name__ == "__main__":
    command.run(main)
