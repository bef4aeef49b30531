"""A farm whose workers note every forward pass before it begins (`tests.chaos.counted`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.e2e.farm import Farm, Process


@dataclass(frozen=True, slots=True)
class Pass:
    """count: images, padding left out. at: when it began, by `time.time`. words: the first
    words of its prompts."""

    count: int
    at: float
    words: frozenset[str]


class CountedFarm(Farm):
    def __init__(self, folder: Path, **env: str) -> None:
        self.notes = folder / "renders"
        super().__init__(folder, **{"RENDERS": str(self.notes), **env})
        self.notes.touch()

    def run(self, command: str, **env: str) -> Process:
        name = f"{command}-{len(self.processes)}.log"
        module = "tests.chaos.counted" if command == "worker" else "promptmill"
        process = Process(command, {**self.env, **env}, self.folder / name, module)
        self.processes.append(process)
        return process

    def passes(self) -> list[Pass]:
        lines = [line.split() for line in self.notes.read_text().splitlines()]
        return [Pass(int(count), float(at), frozenset(words)) for count, at, *words in lines]

    def rendered(self) -> int:
        """Images, those that were wasted counted as well."""
        return sum(one.count for one in self.passes())
