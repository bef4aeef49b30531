"""`python -m tests.chaos.counted worker`: a worker whose stub notes every forward pass before
it begins, in the file that the variable RENDERS names: one that is killed has noted what it
wasted. A line holds the number of images, the time, and the first words of the prompts.
The variable LARGEST_BATCH gives the stub a batch shape above its own."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from promptmill.cli import main
from promptmill.jobs import Item
from worker.generators.base import Input, Pixels
from worker.generators.stub import Stub


class Counted(Stub):
    def __init__(self) -> None:
        if largest := os.environ.get("LARGEST_BATCH"):
            shapes = (*Stub.caps.batch_shapes, int(largest))
            self.caps = replace(Stub.caps, batch_shapes=shapes)

    def load(self, *, device: str, quantization: str) -> None:
        super().load(device=device, quantization=quantization)
        path = Path(os.environ["RENDERS"])
        self._notes = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def generate(self, items: Sequence[Item], inputs: Sequence[Input] = ()) -> Pixels:
        """Padding repeats an item: it is counted once."""
        count, words = (
            len({id(item) for item in items}),
            {w for i in items for w in i.prompt.split()[:1]},
        )
        note = f"{count} {time.time():.3f} {' '.join(sorted(words))}\n"
        os.write(self._notes, note.encode())
        return super().generate(items, inputs)


if __name__ == "__main__":
    from worker.generators import registry

    registry.FACTORIES = {**registry.FACTORIES, "stub": "tests.chaos.counted:Counted"}
    main()
