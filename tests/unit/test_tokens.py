"""Prompts become the tokens that a model was taught with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from promptmill.jobs import Item
from tests import checkpoints
from worker.generators.janus import Janus
from worker.generators.options import Options
from worker.generators.tokens import Prompts, Sampler

ITEM = Item(0, 0, 0, "a cat", 1, 64, 64, guidance=2.0)
SAID = "User: {{ messages[0]['content'][0]['text'] }}"
BOS, PAD, BOI = 0, 2, 3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import JanusForConditionalGeneration

    folder = checkpoints.make("janus", tmp_path_factory.mktemp("tokens") / "janus")
    return JanusForConditionalGeneration.from_pretrained(folder).eval()


@pytest.mark.parametrize("template", [None, SAID, "{{ bos_token }}" + SAID])
def test_both_halves_of_janus_begin_as_its_processor_begins_them(
    model: Any, template: str | None
) -> None:
    tokenizer = checkpoints.janus_tokenizer()
    tokenizer.chat_template = template
    seen: list[Any] = []
    layer = model.get_input_embeddings()
    handle = layer.register_forward_pre_hook(lambda layer, given: seen.append(given[0].clone()))
    items = [ITEM, replace(ITEM, prompt="two cats")]
    try:
        with torch.inference_mode():
            Janus(model, tokenizer, Options()).draw(
                items, Prompts(tokenizer, 32, "cpu"),
                Sampler(items, steps=64, device="cpu", watch=None),
            )  # fmt: skip
    finally:
        handle.remove()
    asked, free = seen[0][:2].tolist(), seen[0][2:].tolist()
    said = "User: " if template else ""
    for item, one, other in zip(items, asked, free, strict=True):
        text = tokenizer(said + item.prompt, add_special_tokens=False).input_ids
        room = 32 - len(text) - 2
        assert one == [PAD] * room + [BOS, *text, BOI]
        assert other == [PAD] * room + [BOS, *[PAD] * len(text), BOI]


def test_a_row_whose_scores_are_no_numbers_is_known() -> None:
    sample = Sampler([ITEM, ITEM], steps=2, device="cpu", watch=None)
    scores = torch.zeros(2, 4)
    sample.noisy(scores.masked_fill(torch.arange(4) > 1, float("-inf")))
    assert sample.lost() == []
    scores[1, 2] = float("nan")
    sample.noisy(scores)
    assert sample.lost() == [1]
