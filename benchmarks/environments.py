"""A virtual environment for each peer, below a build folder that git ignores, made by pip as
it is configured on this machine. What the peer needs is installed there and wins; what it does
not bring (torch, the generator, this tree) it sees where this process sees it."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / "build" / "peers"


def python(name: str, requirements: Sequence[str]) -> Path:
    """The interpreter of the environment `name`, made when it is missing or was made of other
    requirements. Raises SystemExit with pip's reason when it cannot be made."""
    home = HOME / name
    found, made_of = home / "bin" / "python", home / "made-of.txt"
    wanted = "\n".join([sys.version, *requirements])
    if made_of.exists() and made_of.read_text() == wanted:
        return found
    print(f"making the environment of {name} in {home.relative_to(ROOT)}", flush=True)
    _run(sys.executable, "-m", "venv", "--clear", str(home))
    _run(
        str(found), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements
    )
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(home)}))
    (packages / "promptmill-below.pth").write_text("\n".join(_ours()) + "\n")
    made_of.write_text(wanted)
    return found


def _ours() -> list[str]:
    """Where this process finds packages, and this tree."""
    named = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    return [str(ROOT), *named]


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
