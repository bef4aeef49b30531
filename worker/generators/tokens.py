"""What models that draw token by token share: prompts to tokens of one length, scores to the
next token of each row, what a checkpoint says of both. Knows no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from promptmill.jobs import Item
from worker.generators import device as devices
from worker.generators.base import Watch

if TYPE_CHECKING:
    from torch import Tensor


class Prompts:
    """Prompts to token ids of one length: padding must not depend on the neighbours."""

    def __init__(self, tokenizer: Any, most: int, device: str) -> None:
        self.tokenizer = tokenizer
        self.most = most
        self.device = device

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(ids, attention mask), int64 [B, most], padded on the left. Raises `ValueError`
        for a prompt that is too long."""
        import torch

        pad = self.tokenizer.pad_token_id
        rows = [self.tokenizer(text, add_special_tokens=False).input_ids for text in texts]
        for row in rows:
            if len(row) > self.most:
                raise ValueError(f"the prompt has {len(row)} tokens, {self.most} are the most")
        ids = torch.tensor([[pad] * (self.most - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (self.most - len(row)) + [1] * len(row) for row in rows])
        return ids.to(self.device), mask.to(self.device)


class Sampler:
    """The next token of every row: guided, then drawn by the Gumbel-max rule from the row's
    own random numbers, which makes the greedy choice a sample."""

    def __init__(
        self, items: Sequence[Item], *, steps: int, device: str, watch: Watch | None
    ) -> None:
        import torch

        self.guidance = torch.tensor([[item.guidance] for item in items], device=device)
        self.steps = steps
        self.step = 0
        self.top_k = 0
        self.temperature = 1.0
        self._watch = watch
        self._lost = torch.zeros(len(items), dtype=torch.bool, device=device)
        self._streams = [
            torch.Generator("cpu").manual_seed(item.seed & devices.SEED_MASK) for item in items
        ]

    def guide(self, scores: Tensor) -> Tensor:
        """[B, V] of [2B, V]: the conditional rows stand before the unconditional ones."""
        conditional, free = scores.float().chunk(2)
        return free + (conditional - free) * self.guidance

    def noisy(self, scores: Tensor) -> Tensor:
        """Scores [B, V] whose largest is a sample. Tells the watch that a step is done."""
        import torch

        scores = scores / self.temperature
        self._lost |= scores.isnan().any(-1)
        if 0 < self.top_k < scores.shape[-1]:
            least = scores.topk(self.top_k).values[:, -1:]
            scores = scores.masked_fill(scores < least, float("-inf"))
        chance = torch.stack(
            [
                torch.rand(scores.shape[-1], generator=stream, dtype=torch.float64)
                for stream in self._streams
            ]
        ).clamp_min(1e-20)
        self.step += 1
        if self._watch is not None:
            self._watch(self.step, self.steps)
        return scores + (-torch.log(-torch.log(chance))).to(scores)

    def lost(self) -> list[int]:
        """The rows whose scores were no numbers at some step."""
        return [int(row) for row in self._lost.nonzero()]


def special(tokenizer: Any, name: str, usual: str) -> str:
    """The text of a special token, by the tokenizer's own name for it."""
    return str(getattr(tokenizer, name, None) or usual)


def sampling(told: Any, *, top_k: int) -> tuple[int, float]:
    """(top k, temperature) of the checkpoint's generation_config.json."""
    held = getattr(told, "top_k", None)
    return (top_k if held is None else int(held)), float(getattr(told, "temperature", 1.0) or 1.0)


def processors(choose: Callable[[Tensor, Tensor], Tensor]) -> Any:
    """For `generate`: scores replaced by what `choose` makes of (ids, scores)."""
    from transformers import LogitsProcessor, LogitsProcessorList

    class Chosen(LogitsProcessor):
        def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
            chosen: Tensor = choose(ids, scores)
            return chosen

    return LogitsProcessorList([Chosen()])
