"""`python -m tests.mutants [WORD]`: applies each wrong version (whose name holds WORD) to a
copy of the tree, runs the tests that ought to notice, and reports which of them did. Ends
with status 1 where a mutant survives, or where a test fails without one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.mutants.mutants import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
SECONDS = 400  # for the tests of one mutant
FAILED = re.compile(r"^FAILED (\S+)", re.MULTILINE)


def copy_tree(to: Path) -> None:
    """Everything that git knows or would know, as it stands."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)


def mutated(mutant: Mutant, tree: Path) -> str:
    """The mutant's file. Raises `ValueError` unless what it changes stands there once."""
    text = (tree / mutant.path).read_text()
    for old, new in ((mutant.old, mutant.new), *mutant.also):
        if text.count(old) != 1:
            raise ValueError(f"{mutant.name}: {text.count(old)} places in {mutant.path}")
        text = text.replace(old, new)
    return text


def run_tests(tree: Path, tests: Iterable[str]) -> tuple[bool, list[str]]:
    """Whether the tests pass in `tree`, and the first that failed. Ends where they did neither:
    what cannot be collected or started kills no mutant."""
    environ = {**os.environ, "PYTHONPATH": str(tree)}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(
            command,
            cwd=tree,
            env=environ,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SystemExit(f"the tests did not end within {SECONDS} s") from None
    failed = FAILED.findall(done.stdout)
    if done.returncode and not failed:
        raise SystemExit(f"the tests did not run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.returncode == 0, failed


def attack(mutants: Sequence[Mutant]) -> list[str]:
    """Prints a line for each; returns the names of the survivors."""
    survivors = []
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        tree = Path(folder)
        copy_tree(tree)
        for mutant in mutants:
            path, begun = tree / mutant.path, time.monotonic()
            whole = path.read_text()
            path.write_text(mutated(mutant, tree))
            passed, killers = run_tests(tree, mutant.tests)
            path.write_text(whole)
            if passed:
                survivors.append(mutant.name)
            verdict = "SURVIVES" if passed else f"killed by {killers[0]}"
            print(f"{time.monotonic() - begun:6.1f} s  {mutant.name}: {verdict}", flush=True)
    return survivors


def main(words: Sequence[str]) -> int:
    if {"-h", "--help"} & set(words):
        print(__doc__)
        return 0
    chosen = [m for m in MUTANTS if all(word in m.name for word in words)]
    if not chosen:
        print(
            f"no mutant's name has {' '.join(words)}; there are: {', '.join(m.name for m in MUTANTS)}"
        )
        return 2
    tests = sorted({test for mutant in chosen for test in mutant.tests})
    passed, failed = run_tests(ROOT, tests)
    if not passed:
        print(f"without a mutant: {failed[0]}")
        return 1
    survivors = attack(chosen)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} mutants are killed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
