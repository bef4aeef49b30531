"""docker-compose.yml and the Dockerfiles, as far as a machine without an engine can tell:
they parse and lint, what they copy exists, and every service's command and health check,
as written there, runs here as a process against real servers."""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from promptmill import settings
from promptmill.blobs.s3 import S3Blobs
from tests.servers import Bucket, PostgresServer, free_port, free_ports, wait_until

pytestmark = pytest.mark.servers

ROOT = Path(__file__).parents[2]
BIN = Path(sys.prefix) / "bin"
DOCKERFILES = sorted((ROOT / "infra" / "docker").glob("*.Dockerfile"))
FARM = ("api", "worker", "control")
SECRETS = {
    "POSTGRES_PASSWORD": "secret1",
    "REDIS_PASSWORD": "secret2",
    "S3_ACCESS_KEY": "secret3",
    "S3_SECRET_KEY": "secret4",
}


def compose(*args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "docker-compose", "--project-directory", ROOT, "--env-file", os.devnull, *args],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@functools.cache
def services() -> dict[str, dict[str, Any]]:
    shown = compose("config", "--format", "json", **SECRETS)
    assert shown.returncode == 0, shown.stderr
    return dict(json.loads(shown.stdout)["services"])


def test_the_compose_file_is_valid() -> None:
    checked = compose("config", "-q", **SECRETS)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_gpu_file_gives_workers_a_gpu_and_changes_no_one_else() -> None:
    files = ("-f", "docker-compose.yml", "-f", "infra/compose.gpu.yml")
    shown = compose(*files, "config", "--format", "json", **SECRETS)
    assert shown.returncode == 0, shown.stderr
    mixed = json.loads(shown.stdout)["services"]
    worker = mixed.pop("worker")
    assert mixed == {name: one for name, one in services().items() if name != "worker"}
    [device] = worker["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"], device["capabilities"]) == ("nvidia", 1, ["gpu"])
    assert worker["environment"]["PROMPTMILL_DEVICE"] == "cuda"
    extras = set(worker["build"]["args"]["EXTRAS"].split(","))
    with (ROOT / "pyproject.toml").open("rb") as file:
        assert extras < set(tomllib.load(file)["project"]["optional-dependencies"])


@pytest.mark.parametrize("name", SECRETS)
def test_no_secret_has_a_default(name: str) -> None:
    given = {k: v for k, v in SECRETS.items() if k != name}
    refused = compose("config", "-q", **given)
    assert refused.returncode != 0
    assert f"required variable {name} is missing" in refused.stderr
    assert f"{name}=\n" in (ROOT / "infra" / "compose.env.example").read_text()


def test_every_service_is_there_healthy_and_nobody_s_root() -> None:
    assert set(services()) == {"api", "worker", "control", "migrate", "postgres", "redis", "s3"}
    for name, service in services().items():
        assert service["user"].split(":")[0] not in ("", "0", "root"), name
        assert service["cap_drop"] == ["ALL"], name
        assert service.get("healthcheck", {}).get("test") or name == "migrate", name


@pytest.mark.parametrize("name", [*FARM, "postgres", "redis", "s3"])
def test_data_lies_in_named_volumes(name: str) -> None:
    service = services()[name]
    [volume] = service["volumes"]
    assert volume["type"] == "volume"
    assert volume["source"] == name
    if name in FARM:
        assert volume["target"] == service["environment"]["PROMPTMILL_DATA_DIR"]


def test_weights_that_were_pulled_last_and_heartbeats_are_each_container_s_own() -> None:
    service = services()["worker"]
    [volume] = service["volumes"]
    assert Path(service["environment"]["HF_HOME"]).is_relative_to(volume["target"])
    for name in ("worker", "control"):
        [mounted] = services()[name]["tmpfs"]
        assert mounted.split(":")[0] == f"{volume['target']}/health"


def test_every_log_is_rotated() -> None:
    for name, service in services().items():
        options = service["logging"]["options"]
        assert service["logging"]["driver"] == "json-file", name
        assert options["max-size"] and int(options["max-file"]) > 1, name


@pytest.mark.parametrize("name", [*FARM, "migrate"])
def test_settings_as_written_are_settings(name: str) -> None:
    read = settings.read(services()[name]["environment"])
    assert read.database.endswith("@postgres:5432/promptmill")
    assert read.auth == ("keys" if name == "api" else "off")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.name)
def test_dockerfiles_lint_clean(path: Path) -> None:
    linted = subprocess.run(
        [BIN / "hadolint", path], capture_output=True, text=True, timeout=60, check=False
    )
    assert (linted.returncode, linted.stdout) == (0, "")


def instructions(path: Path) -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    return [(word, rest) for word, rest in lines]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.name)
def test_everything_that_is_copied_exists(path: Path) -> None:
    ignored = set((ROOT / ".dockerignore").read_text().split())
    stages = 0
    for word, rest in instructions(path):
        stages += word == "FROM"
        if word == "COPY" and not rest.startswith("--from="):
            *sources, _ = rest.split()
            for source in sources:
                assert (ROOT / source).exists(), f"{path.name} copies {source}"
                assert source not in ignored
    assert stages == 2, "one stage builds, one runs"


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.name)
def test_images_run_unprivileged_and_say_what_compose_says(path: Path) -> None:
    service = services()[path.name.removesuffix(".Dockerfile")]
    said = dict(instructions(path))  # the last of each
    assert said["USER"] == service["user"]
    command = json.loads(said["CMD"])
    assert service["command"][: len(command)] == command
    probe = json.loads(said["HEALTHCHECK"].partition(" CMD ")[2])
    assert probe == service["healthcheck"]["test"][1:]


def test_the_package_builds_from_what_the_images_copy(tmp_path: Path) -> None:
    """Both images copy the same things: the package's metadata can be read from them."""
    copied = [
        {
            s
            for w, r in instructions(path)
            if w == "COPY" and "--from" not in r
            for s in r.split()[:-1]
        }
        for path in DOCKERFILES
        if path.name != "s3.Dockerfile"
    ]
    assert copied[0] == copied[1]
    for source in copied[0]:
        if (ROOT / source).is_file():
            shutil.copy(ROOT / source, tmp_path)
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text())
    assert (tmp_path / project["project"]["readme"]).exists()
    packages = project["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {name.rstrip("*") for name in packages} <= copied[0]


# each service's command and health check, here


def local(command: list[str]) -> list[str]:
    """The command with its program out of the environment that the tests run in."""
    program = BIN / command[0]
    return [str(program) if program.exists() else command[0], *command[1:]]


def probe(service: Mapping[str, Any], env: Mapping[str, str], swap: Mapping[str, str]) -> bool:
    """Runs a health check as written, but for the ports and programs of this machine."""
    kind, *words = service["healthcheck"]["test"]
    for old, new in swap.items():
        words = [word.replace(old, new) for word in words]
    words = ["sh", "-c", *words] if kind == "CMD-SHELL" else local(words)
    done = subprocess.run(words, env=dict(env), capture_output=True, timeout=30, check=False)
    return done.returncode == 0


@contextmanager
def running(command: list[str], env: Mapping[str, str], log: Path) -> Iterator[Callable[[], str]]:
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env=dict(env), cwd=log.parent, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        yield lambda: f"{shlex.join(command)} ended {process.poll()}:\n{log.read_text()[-3000:]}"
    finally:
        process.terminate()
        try:
            process.wait(35)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


@pytest.fixture
def farm_env(
    tmp_path: Path, new_postgres_db: Callable[[], str], redis7_url: str, s3: Bucket
) -> Callable[[str], dict[str, str]]:
    """A service's environment as written, but for where the servers are."""
    here = {
        **s3.fresh().env(),
        "PROMPTMILL_DATABASE_URL": new_postgres_db(),
        "PROMPTMILL_REDIS_URL": redis7_url,
        "PROMPTMILL_DATA_DIR": str(tmp_path / "data"),
        "PATH": f"{BIN}:{os.environ['PATH']}",
    }
    port = str(free_port())
    absent = tmp_path / "absent"  # what the API's image does not hold
    absent.mkdir()
    for module in ("torch", "numpy", "transformers", "safetensors"):
        (absent / f"{module}.py").write_text("raise ModuleNotFoundError(name=__name__)\n")

    def env(name: str) -> dict[str, str]:
        written = dict(services()[name]["environment"])
        assert set(here) - {"PATH"} <= set(written)
        if "PROMPTMILL_PORT" in written:
            written |= {"PROMPTMILL_PORT": port, "PROMPTMILL_HOST": "127.0.0.1"}
        if "HF_HOME" in written:
            written["HF_HOME"] = str(tmp_path / "hub")
        if services()[name]["build"]["dockerfile"].endswith("api.Dockerfile"):
            written["PYTHONPATH"] = str(absent)
        return {**written, **here}

    return env


def healthy(
    name: str,
    env: Mapping[str, str],
    told: Callable[[], str],
    swap: Mapping[str, str] | None = None,
) -> None:
    """Waits until the health check passes; when it does not, shows the service's log."""
    try:
        wait_until(lambda: probe(services()[name], env, swap or {}), seconds=60, what=name)
    except AssertionError as late:
        raise AssertionError(f"{late}\n{told()}") from None


@pytest.mark.timeout(400)
def test_the_farm_starts_and_is_healthy_as_written(
    farm_env: Callable[[str], dict[str, str]], tmp_path: Path
) -> None:
    env = farm_env("migrate")
    migrated = subprocess.run(
        local(services()["migrate"]["command"]),
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert migrated.returncode == 0, migrated.stderr
    for name in FARM:
        assert not probe(services()[name], farm_env(name), {}), f"{name} is not started yet"
    for name in FARM:
        env = farm_env(name)
        command = local(services()[name]["command"])
        with running(command, env, tmp_path / f"{name}.log") as told:
            healthy(name, env, told)
            if name == "api":
                url = f"http://127.0.0.1:{env['PROMPTMILL_PORT']}"
                assert httpx.get(f"{url}/v1/jobs").status_code == 401


def test_redis_starts_and_is_healthy_as_written(tmp_path: Path) -> None:
    service, port = services()["redis"], str(free_port())
    env = {**service["environment"], "PATH": os.environ["PATH"]}
    swap = {"redis-cli": f"redis-cli -p {port}"}
    assert not probe(service, env, swap)
    command = [*service["command"], "--port", port, "--dir", str(tmp_path)]
    with running(command, env, tmp_path / "redis.log") as told:
        healthy("redis", env, told, swap)
        assert not probe(service, {**env, "REDISCLI_AUTH": "wrong"}, swap)


class PostgresAsWritten(PostgresServer):
    """The service's command on a data folder as its image's entry point makes it."""

    def command(self) -> list[str]:
        program, *options = services()["postgres"]["command"]
        here = ["-D", str(self.data), "-p", str(self.port)]
        alone = ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
        return [str(self.bin / program), *options, *here, *alone]


def test_postgres_starts_and_is_healthy_as_written() -> None:
    service = services()["postgres"]
    env = {"PATH": os.environ["PATH"]}
    with PostgresAsWritten() as server:
        given = service["environment"]
        owner, name = given["POSTGRES_USER"], given["POSTGRES_DB"]
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} OWNER {owner}".encode())
        with psycopg.connect(server.url_of(name), user=owner) as connection:
            [most] = connection.execute("SHOW max_connections").fetchone() or [""]
        assert f"max_connections={most}" in service["command"]
        words = [
            part
            for word in service["healthcheck"]["test"][1:]
            for part in {
                "pg_isready": [str(server.bin / "pg_isready")],
                "127.0.0.1": ["127.0.0.1", "-p", str(server.port)],
            }.get(word, [word])
        ]
        done = subprocess.run(words, env=env, capture_output=True, timeout=20, check=False)
        assert done.returncode == 0, done.stdout
        server.stop()
        assert subprocess.run(
            words, env=env, capture_output=True, timeout=20, check=False
        ).returncode


def test_s3_starts_with_its_bucket_and_is_healthy_as_written(tmp_path: Path) -> None:
    service = services()["s3"]
    names = [f"-{part}.port" for part in ("volume", "filer", "admin")]
    names += [f"-{part}.port.grpc" for part in ("volume", "filer", "s3", "master")]
    port, master, *others = free_ports(2 + len(names))
    env = {**service["environment"], "PATH": f"{BIN}:{os.environ['PATH']}"}
    swap = {
        "8333": str(port),
        "127.0.0.1:9333": f"127.0.0.1:{master}.{others[-1]}",
        "=9333": f"={master}",
        "/data": str(tmp_path),
    }
    command = local(service["command"])
    for old, new in swap.items():
        command = [word.replace(old, new) for word in command]
    command += [f"{name}={number}" for name, number in zip(names, others, strict=True)]
    assert not probe(service, env, swap)
    with (
        running(command, env, tmp_path / "s3.log") as told,
        pytest.MonkeyPatch.context() as patch,
        closing(S3Blobs("promptmill", endpoint_url=f"http://127.0.0.1:{port}")) as store,
    ):
        healthy("s3", env, told, swap)
        patch.setenv("AWS_ACCESS_KEY_ID", SECRETS["S3_ACCESS_KEY"])
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRETS["S3_SECRET_KEY"])
        store.probe()
