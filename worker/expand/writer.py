"""The language model itself: some prompts in, the words that it would go on with out. Greedy
and of one fixed shape, so that an answer depends on its own prompt alone."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from worker.expand import lora, words
from worker.generators import device as devices

ROWS = 8  # prompts at a time; fewer are filled up
PROMPT = 48  # tokens of a question; a prompt that takes more is long enough as it is
ANSWER = 32  # tokens at most


class Writer:
    """Loaded on the CPU in bfloat16. adapter: a LoRA to put over the weights, or None."""

    def __init__(self, folder: Path, *, digest: str, adapter: Path | None = None) -> None:
        import torch

        transformers: Any = importlib.import_module("transformers")
        transformers.utils.logging.disable_progress_bar()
        self._torch = torch
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            padding_side="left",
            pad_token=words.ENDED,
        )
        self._model = transformers.AutoModelForCausalLM.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.bfloat16,
        ).eval()
        if adapter is not None:
            lora.merge(self._model, adapter)
        self.fingerprint = _hash(
            [
                digest,
                "" if adapter is None else hashlib.sha256(adapter.read_bytes()).hexdigest(),
                words.ASKED,
                words.KEPT,
                ROWS,
                PROMPT,
                ANSWER,
                torch.__version__,
                transformers.__version__,
                devices.name("cpu"),
                torch.get_num_threads(),
            ]
        )

    def fits(self, prompt: str) -> bool:
        """Whether the question about this prompt has its place in the fixed shape."""
        return len(self._tokenizer(words.asked(prompt)).input_ids) <= PROMPT

    def write(self, prompts: Sequence[str]) -> list[str]:
        """The answers to one to ROWS prompts that fit."""
        filled = [*prompts, *[prompts[-1]] * (ROWS - len(prompts))]
        given = self._tokenizer(
            [words.asked(prompt) for prompt in filled],
            padding="max_length",
            max_length=PROMPT,
            return_tensors="pt",
        )
        with self._torch.inference_mode():
            made = self._model.generate(
                input_ids=given.input_ids,
                attention_mask=given.attention_mask,
                do_sample=False,
                max_new_tokens=ANSWER,
                pad_token_id=self._tokenizer.pad_token_id,
                eos_token_id=self._tokenizer.convert_tokens_to_ids(words.ENDED),
            )
        answers = self._tokenizer.batch_decode(made[:, PROMPT:], skip_special_tokens=True)
        return list(answers[: len(prompts)])


def _hash(parts: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
