"""The image classifier: what it refuses of a checkpoint's pictures, and a checkpoint that is none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from promptmill import errors
from promptmill.jobs import Item
from worker.classifier import Classifier

ITEM = Item(0, 0, 0, "a red heart", 1, 64, 64)


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


def test_a_classifier_that_brings_code_is_refused(classifier: Path, tmp_path: Path) -> None:
    made = tmp_path / "own"
    shutil.copytree(classifier, made)
    settings = made / "preprocessor_config.json"
    held = json.loads(settings.read_text())
    settings.write_text(json.dumps({**held, "auto_map": {"AutoImageProcessor": "own.Own"}}))
    (made / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(errors.ModelInvalid, match=r"preprocessor_config\.json asks for code"):
        Classifier(str(made), labels="nsfw", threshold=0.5, device="cpu")
    assert not (tmp_path / "ran").exists()


def test_a_classifier_without_its_last_layer_is_refused(classifier: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    made = tmp_path / "headless"
    shutil.copytree(classifier, made)
    held = load_file(made / "model.safetensors")
    del held["classifier.weight"]
    save_file(held, made / "model.safetensors", {"format": "pt"})
    with pytest.raises(errors.Error, match=r"is incomplete.* lacks classifier\.weight"):
        Classifier(str(made), labels="nsfw", threshold=0.5, device="cpu")
