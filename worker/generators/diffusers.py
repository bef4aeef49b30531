"""Any text-to-image pipeline that diffusers loads from a checkpoint, with image-to-image and
inpainting where the pipeline has them. Nothing is imported before `load`."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from typing import Any

from promptmill import errors
from promptmill.jobs import Item
from promptmill.models import Caps
from worker.generators import (
    compiled,
    diffusers_offers,
    diffusers_pixels,
    hub,
    quantization,
    reading,
    steady,
)
from worker.generators import device as devices
from worker.generators import diffusers_loading as loading
from worker.generators.base import Input, OutOfMemory, Pixels, Rejected, Resolved, Watch, broken
from worker.generators.checkpoint import Checkpoint
from worker.generators.options import Options

log = logging.getLogger(__name__)

# what becomes of an item before and after the pipeline: its arguments and steps, how a source is
# cut and a mask read, what is kept outside it, how pixels are rounded, tails and settled layers
RULES = "1"


class Diffusers:
    """One pipeline. An image depends on its item alone at a given batch shape: each has a
    stream of random numbers of its own, and a pipeline whose text encoder pads to the
    longest neighbour is found out on load and runs one image at a time."""

    def __init__(self, found: Checkpoint, options: Options) -> None:
        self.checkpoint = found
        self.options = options
        self.name = found.name
        self.caps = Caps(sizes=options.sizes or ((512, 512),), batch_shapes=options.batch_shapes)
        self.watch: Watch | None = None
        self._fingerprint = ""
        self._device = "cpu"
        self._pipes: dict[str, Any] = {}

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all that decides the bytes; empty before `load`."""
        return self._fingerprint

    # loading

    def load(self, *, device: str, quantization: str) -> None:
        """Reads the pipeline from safetensors alone, without the network."""
        hub.go_offline()
        self._device = devices.choose(device)
        plan = self._plan(quantization)
        devices.require_room(self.name, loading.size(self.checkpoint, plan), self._device)
        pipe = reading.run(
            lambda: loading.read(self.checkpoint, plan).to(self._device), self.name, self._device
        )
        pipe.set_progress_bar_config(disable=True)
        self._pipes = loading.tasks(pipe)
        loras = loading.load_loras(pipe, self.options.loras)
        if self._device != "cpu":
            for part in loading.networks(pipe):
                steady.settle(part)
        if plan.compiled:
            compiled.compile(loading.large(pipe))
        self.caps = diffusers_offers.caps(self._pipes, self.options, self._possible())
        self._fingerprint = self._digest(plan, loras)
        if not self._steady():
            log.warning(
                "%s: prompts change each other in a batch: it runs one at a time", self.name
            )
            self.caps = replace(self.caps, batch_shapes=(1,))

    def resolve(self, *, device: str, quantization: str) -> Resolved:
        self._device = devices.choose(device)
        plan = self._plan(quantization)
        return Resolved(self._device, plan.name, self._why(quantization))

    def _why(self, name: str) -> str:
        return quantization.why(name, devices.described(self._device))

    def _plan(self, name: str) -> quantization.Plan:
        return quantization.plan(
            name, devices.described(self._device), loading.quantizable(self.checkpoint)
        )

    def _possible(self) -> tuple[str, ...]:
        return quantization.possible(
            devices.described(self._device), loading.quantizable(self.checkpoint)
        )

    def _digest(self, plan: quantization.Plan, loras: Mapping[str, str]) -> str:
        weights = [self.checkpoint.digest(), self.checkpoint.revision, loras]
        where = [*devices.kernels(self._device), *loading.versions(plan)]
        if loras:
            where.append(metadata.version("peft"))
        return _hash(["diffusers", RULES, plan.format, plan.compiled, *weights, *where])

    def _steady(self) -> bool:
        """Whether an image stays the same to the bit beside neighbours with other prompts and
        in another place."""
        if self.caps.max_batch == 1 or self.caps.tasks[0] != "text2image":
            return True
        shape = next(shape for shape in self.caps.batch_shapes if shape > 1)
        width, height = min(self.caps.sizes, key=lambda size: size[0] * size[1])
        steps = max(self.caps.steps[0], min(2, self.caps.steps[2]))
        first, *rest = [
            Item(k, k, 0, f"a red heart {k}", k, width, height, steps=steps,
                 guidance=self.caps.guidance[1])
            for k in range(shape)
        ]  # fmt: skip
        longer = [replace(one, prompt="a long tale of a cat and a dog " * 4) for one in rest]
        try:
            one, other = self._tried([first, *rest]), self._tried([*longer, first])
        except OutOfMemory:
            return True  # the engine finds what fits
        return bool((one[0] == other[-1]).all())

    def warmup(self, shapes: Sequence[int]) -> None:
        """One picture of the fewest steps: compilation is paid per bucket, when the engine
        measures it."""
        (width, height), steps = self.caps.sizes[0], self.caps.steps[0]
        item = Item(0, 0, 0, "red heart", 0, width, height, steps=max(1, steps))
        if self.caps.tasks[0] == "text2image":
            self._tried([replace(item, guidance=self.caps.guidance[1])] * min(shapes))

    def _tried(self, items: Sequence[Item]) -> Pixels:
        return reading.tried(self.checkpoint.folder, lambda: self.generate(items))

    # rendering

    def generate(self, items: Sequence[Item], inputs: Sequence[Input] = ()) -> Pixels:
        """Pictures uint8 [B, H, W, 3] of the items, in order."""
        if not self._pipes:
            raise errors.Error(f"{self.name} is not loaded")
        return devices.run(lambda: self._render(items, inputs))

    def _render(self, items: Sequence[Item], inputs: Sequence[Input]) -> Pixels:
        first = items[0]
        self._activate(first.lora)
        pipe = self._pipes[first.task]
        arguments = self._arguments(pipe, items) | diffusers_pixels.given(first, inputs)
        if first.task in ("img2img", "inpaint"):
            arguments["strength"] = first.strength
            # at least one step must be left of what the strength takes away
            least = math.ceil(1 / first.strength) if first.strength else 1
            least += least * first.strength < 1  # as 161 * (1 / 161) is
            arguments["num_inference_steps"] = max(first.steps, least)
        with devices.inference(self._device):
            made = pipe(**arguments)
        lost = broken(made.images)
        pixels = diffusers_pixels.bytes_of(made.images)
        if inputs and inputs[0].mask is not None:
            pixels = diffusers_pixels.keep_outside(pixels, inputs)
        flagged = getattr(made, "nsfw_content_detected", None) or ()
        found = {k: "the checkpoint's safety checker" for k, bad in enumerate(flagged) if bad}
        if found or lost:
            raise Rejected(found, pixels, broken=lost)
        return pixels

    def _arguments(self, pipe: Any, items: Sequence[Item]) -> dict[str, Any]:
        import torch

        first, known = items[0], diffusers_offers.signature(pipe)
        arguments: dict[str, Any] = {
            "prompt": [item.prompt for item in items],
            "generator": [
                torch.Generator("cpu").manual_seed(item.seed & devices.SEED_MASK) for item in items
            ],
            "num_inference_steps": first.steps,
            "output_type": "pt",
        }
        if "width" in known:
            arguments |= {"width": first.width, "height": first.height}
        if "guidance_scale" in known:
            arguments["guidance_scale"] = first.guidance
        if "negative_prompt" in self.caps.parameters and first.guidance > 1:
            # for all or none: whether one is given must not change the neighbours
            arguments["negative_prompt"] = [item.negative_prompt for item in items]
        if "callback_on_step_end" in known:
            arguments["callback_on_step_end"] = self._stepped
        return arguments

    def _stepped(self, pipe: Any, step: int, time: Any, held: dict[str, Any]) -> dict[str, Any]:
        if self.watch is not None:
            self.watch(step + 1, int(pipe.num_timesteps))
        return held

    def _activate(self, lora: str) -> None:
        if not self.options.loras:
            return
        pipe = next(iter(self._pipes.values()))
        if lora:
            pipe.enable_lora()
            pipe.set_adapters([lora])
        else:
            pipe.disable_lora()

    def room(self) -> float:
        return devices.room(self._device)

    def close(self) -> None:
        self._pipes = {}
        devices.free_cache()


def _hash(parts: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
