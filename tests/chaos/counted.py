"""`python -m tests.chaos.counted worker`: a worker whose stub notes every image before it
renders it, in the file that the variable RENDERS names: one that is killed has noted what it
wasted."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from promptmill.cli import main
from promptmill.jobs import Item
from worker.generators.base import Input, Pixels
from worker.generators.stub import Stub


class Counted(Stub):
    def load(self, *, device: str, quantization: str) -> None:
        super().load(device=device, quantization=quantization)
        path = Path(os.environ["RENDERS"])
        self._notes = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def generate(self, items: Sequence[Item], inputs: Sequence[Input] = ()) -> Pixels:
        """Padding repeats an item: it is counted once."""
        os.write(self._notes, b"%d\n" % len({id(item) for item in items}))
        return super().generate(items, inputs)


if __name__ == "__main__":
    from worker.generators import registry

    registry.FACTORIES = {**registry.FACTORIES, "stub": "tests.chaos.counted:Counted"}
    main()
