"""What the generator takes, without torch: the shape of its condition, and an item's own random
numbers. `networks` has the same condition for tensors."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

TEXT = 384  # components of a sentence embedding
VENDORS = ("noto", "twemoji", "fluent")
VENDOR_CODE = 16  # components of the vendor code, so that 384 + 16 + 16 is a multiple of 32
NOISE = 16
CONDITION = TEXT + VENDOR_CODE + NOISE
SIDE = 64  # pixels
EMPHASIS = np.float32(1.5)  # of a style that a picture is drawn anew in

Floats = NDArray[np.float32]


def condition(text: Floats, vendors: NDArray[np.int64], noise: Floats) -> Floats:
    """The generator's input [B, 416], bit for bit what `networks.condition` makes of text
    [B, 384], vendor indices [B] and noise [B, 16]."""
    scaled = text * np.float32(math.sqrt(TEXT))
    return np.concatenate([scaled, vendor_code(vendors), noise.clip(-3, 3)], axis=1)


def vendor_code(vendors: NDArray[np.int64]) -> Floats:
    """As `networks.vendor_code`."""
    reach = VENDOR_CODE // len(VENDORS)
    code = np.zeros((len(vendors), VENDOR_CODE), dtype=np.float32)
    own = vendors[:, None] == np.arange(len(VENDORS)).repeat(reach)
    code[:, : own.shape[1]] = np.where(own, 1, -1)
    return code


def emphatic(conditions: Floats) -> Floats:
    """The conditions [B, 416] with more of their style than any that was learned: the code goes
    on in the direction in which it leads, as guidance does (Ho and Salimans 2022, eq. 6)."""
    made = conditions.copy()
    made[:, TEXT : TEXT + VENDOR_CODE] *= EMPHASIS
    return made


def draws(seed: int) -> tuple[Floats, int]:
    """The noise [16] and the vendor that a seed stands for: the numbers of torch's own CPU
    stream (Mersenne twister, Box and Muller 1958 on its 24-bit uniforms), to the last bit or
    two of the logarithm and the cosine."""
    stream = np.random.RandomState(seed & 0xFFFFFFFF)
    words = stream.randint(0, 2**32, NOISE + 1, dtype=np.uint32)
    uniform = (words[:NOISE] & 0xFFFFFF).astype(np.float32) / np.float32(2**24)
    half = NOISE // 2
    radius = np.sqrt(np.float32(-2) * np.log(1 - uniform[:half]))
    angle = np.float32(2 * math.pi) * uniform[half:]
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
    return normal, int(words[NOISE]) % len(VENDORS)
