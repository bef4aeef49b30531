"""The heavy libraries are imported by the worker that needs them and by nothing else."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("diffusers", "transformers", "peft", "huggingface_hub")


@pytest.mark.parametrize(
    "code",
    [
        "import promptmill, promptmill.cli, promptmill.local",
        "import api.app",
        "import worker.app, worker.generators.transformers, worker.generators.diffusers",
        "from worker.generators import registry; registry.seeds(); g = registry.create('stub');"
        "g.load(device='cpu', quantization='none'); g.warmup((1,))",
        "from worker.generators import registry; g = registry.create('emoji-gan');"
        "g.load(device='cpu', quantization='int8')",
    ],
    ids=["core", "api", "worker", "stub", "emoji-gan"],
)
def test_without_a_checkpoint_no_library_of_checkpoints_is_imported(code: str) -> None:
    told = f"{code}\nimport sys\nprint([n for n in {HEAVY} if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", told], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


# FastAPI imports the API of OpenTelemetry, and redis its metrics where the SDK is installed.
TRACING = (
    "opentelemetry.sdk.trace",
    "opentelemetry.exporter",
    "opentelemetry.proto",
    "promptmill.traces.otlp",
)


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import promptmill, promptmill.cli, promptmill.local", ("opentelemetry",)),
        (
            "import api.app, worker.app, worker.control.app; from promptmill import traces;"
            "traces.configure('api', '').close()",
            TRACING,
        ),
    ],
    ids=["core", "farm"],
)
def test_without_a_collector_nothing_that_traces_is_imported(
    code: str, absent: tuple[str, ...]
) -> None:
    told = f"{code}\nimport sys\nprint([n for n in sys.modules if n.startswith({absent})])"
    done = subprocess.run(
        [sys.executable, "-c", told], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
