"""The checks of prompts and pictures: what they refuse, and that they say why."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from promptmill import errors
from promptmill.jobs import Item
from promptmill.settings import Settings
from worker import checks, memory
from worker.blocklist import Blocklist
from worker.classifier import Classifier

ITEM = Item(0, 0, 0, "a red heart", 1, 64, 64)


@pytest.mark.parametrize(
    ("prompt", "line"),
    [
        ("a red heart", None),
        ("the HEART of Gold", 4),
        ("a ｇｏｌｄ  heart of   gold", 4),
        ("hearts of golden", None),
        ("call 555-1234 now", 5),
        ("skunk", None),
    ],
)
def test_words_match_whole_and_folded_and_patterns_anywhere(prompt: str, line: int | None) -> None:
    listed = Blocklist(["# comment", "", "kun", "heart of gold", r"/\d{3}-\d{4}/"])
    verdict = listed.verdict(replace(ITEM, prompt=prompt))
    assert (verdict is None) == (line is None)
    assert (
        line is None
        or str(verdict) == f"the prompt is refused by line {line} of this farm's block-list"
    )


def test_the_negative_prompt_is_checked_too() -> None:
    verdict = Blocklist(["blood"]).verdict(replace(ITEM, negative_prompt="blood"))
    assert verdict is not None
    assert verdict.startswith("the negative_prompt")


def test_a_pattern_that_is_none_is_named_by_its_line(tmp_path: Path) -> None:
    listed = tmp_path / "blocked.txt"
    listed.write_text("fine\n/(/\n")
    with pytest.raises(errors.SettingInvalid, match=r"blocked\.txt, line 2"):
        checks.from_settings(Settings(prompt_blocklist=str(listed)))
    with pytest.raises(errors.SettingInvalid, match="cannot be read"):
        checks.from_settings(Settings(prompt_blocklist=str(tmp_path / "absent")))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vision transformer that is sure of `nsfw` for every picture: its last layer says so."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    folder = tmp_path_factory.mktemp("classifier")
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=32, patch_size=16, id2label={0: "normal", 1: "nsfw"},
        label2id={"normal": 0, "nsfw": 1},
    )  # fmt: skip
    model = ViTForImageClassification(config)
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([0.0, 2.0]))
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        '{"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}'
    )
    return folder


def test_a_classifier_refuses_what_it_is_sure_of(classifier: Path) -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)

    def verdict(labels: str, threshold: float) -> str | None:
        made = Classifier(str(classifier), labels=labels, threshold=threshold, device="cpu")
        return made.verdict(ITEM, pixels)

    assert "nsfw 0.881" in str(verdict("nsfw", 0.5))
    assert verdict("nsfw", 0.9) is None
    assert verdict("normal", 0.5) is None
    with pytest.raises(errors.SettingInvalid, match="normal, nsfw"):
        verdict("cats", 0.5)


def test_a_classifier_without_its_last_layer_is_refused(classifier: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    made = tmp_path / "headless"
    shutil.copytree(classifier, made)
    held = load_file(made / "model.safetensors")
    del held["classifier.weight"]
    save_file(held, made / "model.safetensors", {"format": "pt"})
    with pytest.raises(errors.Error, match=r"is incomplete.* lacks classifier\.weight"):
        Classifier(str(made), labels="nsfw", threshold=0.5, device="cpu")


def test_memory_has_grown_only_once_the_worker_has_settled() -> None:
    growth = memory.Growth(100)
    assert not growth.excessive(batches=10, now=10**9)
    assert not growth.excessive(batches=50, now=1000)
    assert not growth.excessive(batches=51, now=1100)
    assert growth.excessive(batches=52, now=1101)
    assert not memory.Growth(0).excessive(batches=52, now=10**12)
    assert memory.held() > 10**6
