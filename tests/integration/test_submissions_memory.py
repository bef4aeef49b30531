"""The memory of a process that takes a submission does not grow with its rows."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

from promptmill.store import models as registry
from promptmill.store import tenants
from promptmill.store.database import Database
from tests.unit.submissions_kit import STUB, opened
from tests.unit.test_submissions_receive import boats, take


def growth(folder: str) -> None:
    """Prints by how many bytes the process grew with 200,000 rows, once warm."""
    database = Database(f"sqlite:///{folder}/test.db")
    database.migrate()
    tenants.ensure_default(database)
    registry.register(database, STUB)
    take(database, opened(boats(20_000)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert take(database, opened(boats(200_000))).job.counts.total == 200_000
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    database.close()
    print((after - before) * 1024)


def test_memory_is_flat(tmp_path: Path) -> None:
    code = "import sys; from tests.integration import test_submissions_memory as t; t.growth(sys.argv[1])"
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) < 50_000_000
