"""The text around the language model: what it is asked, and what of its answer is kept.
Pure functions of strings."""

from __future__ import annotations

import re

ASKED = "<|im_start|>user\nDescribe a picture of: {prompt}<|im_end|>\n<|im_start|>assistant\n"
ENDED = "<|im_end|>"
KEPT = "what the answer says first"  # of it, behind the prompt: changes with `kept`
SMALL = frozenset(
    """a an and are as at be but by for from has have in into is it its of off on onto or out
    over some that the their them then there they this to under up was were which while who
    with without""".split()  # noqa: SIM905
)
_WORD = re.compile(r"[^\W_]+", re.UNICODE)
_END = re.compile(r"[,.!?\n;:]")


def asked(prompt: str) -> str:
    """What the model goes on from. Whitespace in the prompt is one space."""
    return ASKED.format(prompt=" ".join(prompt.split()))


def kept(prompt: str, answer: str) -> str:
    """The prompt and, behind it, what the answer says first: up to a comma or the sentence's end,
    since what comes later is what the model makes up. An answer that leaves out a word of the
    prompt speaks of something else, one that says nothing more or breaks off ("a large, ...")
    tells nothing: then the prompt stays as it is."""
    said = _END.split(answer.strip(), maxsplit=1)[0].strip(" -\"'")
    if not _stems(prompt) or not holds(said, prompt) or holds(prompt, said):
        return prompt
    return f"{prompt.strip()}, {said}"


def holds(text: str, prompt: str) -> bool:
    """Whether every word of the prompt that means something stands in the text."""
    return set(_stems(text)).issuperset(_stems(prompt))


def _stems(text: str) -> list[str]:
    """Its words in small letters, without those that every text has, without a plural s."""
    words = (word.lower() for word in _WORD.findall(text))
    return [word.removesuffix("s") for word in words if word not in SMALL]
