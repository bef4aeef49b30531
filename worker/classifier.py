"""A check of pictures by any image classifier that transformers reads: the farm's operator
names the checkpoint, the labels that are refused and how sure it must be."""

from __future__ import annotations

import threading
from typing import Any

from promptmill import errors, models
from promptmill.jobs import Item
from worker.generators import checkpoint, hub, reading
from worker.generators import device as devices
from worker.generators.base import Pixels


class Classifier:
    """One picture at a time, so that a verdict depends on its picture alone."""

    def __init__(self, model: str, *, labels: str, threshold: float, device: str) -> None:
        """model: hf:ORG/NAME or a folder, safetensors only, no network. labels: names from
        the checkpoint, comma-separated. Raises `errors.Error` for what cannot be loaded."""
        self.name = model
        self.threshold = threshold
        self._lock = threading.Lock()
        self._device = devices.choose(device)
        self._processor, self._model = _read(model, self._device)
        self._refused = _numbers_of(labels, self._model.config.id2label, model)

    def verdict(self, item: Item, pixels: Pixels) -> str | None:
        import torch
        from PIL import Image

        with self._lock, torch.inference_mode():
            seen = self._processor(images=Image.fromarray(pixels), return_tensors="pt")
            logits = self._model(**seen.to(self._device)).logits[0]
            chances = torch.softmax(logits.float(), dim=-1).tolist()
        found = {name: chances[number] for number, name in self._refused.items()}
        name, chance = max(found.items(), key=lambda pair: pair[1])
        if chance < self.threshold:
            return None
        return f"the picture is refused by {models.served_name(self.name)}: {name} {chance:.3f}"


def _read(model: str, device: str) -> tuple[Any, Any]:
    hub.go_offline()
    import transformers

    processors: Any = transformers.AutoImageProcessor  # not typed
    found = checkpoint.find(model)
    what = f"PROMPTMILL_IMAGE_CHECK={model!r}"
    with reading.told(what):
        processor = processors.from_pretrained(
            found.folder, local_files_only=True, trust_remote_code=False, use_fast=False
        )
        kind: Any = transformers.AutoModelForImageClassification
        made, told = kind.from_pretrained(
            found.folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    reading.require_all(what, told["missing_keys"])
    return processor, made.to(device).eval()


def _numbers_of(labels: str, known: dict[int, str], model: str) -> dict[int, str]:
    """Number → label of those that are refused."""
    wanted = [label.strip() for label in labels.split(",") if label.strip()]
    numbers = {name: number for number, name in known.items()}
    missing = [label for label in wanted if label not in numbers]
    if missing or not wanted:
        raise errors.SettingInvalid(
            f"PROMPTMILL_IMAGE_CHECK_LABELS must name labels of {model} "
            f"({', '.join(known.values())}), not {labels!r}",
            param="PROMPTMILL_IMAGE_CHECK_LABELS",
        )
    return {numbers[label]: label for label in wanted}
