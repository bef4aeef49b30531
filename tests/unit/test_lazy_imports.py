"""Libraries are imported by the process that needs them and by nothing else."""

from __future__ import annotations

import subprocess
import sys

import pytest

CHECKPOINTS = ("diffusers", "transformers", "peft", "huggingface_hub")
START = ("alembic", "psycopg", "promptmill.client", "promptmill.local", "pyarrow")
SERVE = "import promptmill.cli.serve"


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import promptmill, promptmill.cli, promptmill.local", (*CHECKPOINTS, "sqlalchemy")),
        (f"{SERVE}, api.app", (*CHECKPOINTS, *START, "numpy")),
        (f"{SERVE}, worker.control.app", (*CHECKPOINTS, *START, "numpy")),
        (f"{SERVE}, worker.app", (*CHECKPOINTS, *START, "torch")),
        ("import worker.generators.transformers, worker.generators.diffusers", CHECKPOINTS),
        (
            "from worker.generators import registry; registry.seeds();"
            "g = registry.create('emoji-gan'); g.load(device='cpu', quantization='int8')",
            CHECKPOINTS,
        ),
    ],
    ids=["core", "api", "control", "worker", "adapters", "emoji-gan"],
)
def test_what_a_process_does_not_need_is_not_imported(code: str, absent: tuple[str, ...]) -> None:
    told = f"{code}\nimport sys\nprint([n for n in {absent} if n in sys.modules])"
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
