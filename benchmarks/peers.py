"""The farm beside what else serves a generator: LitServe, Ray Serve, BentoML and
celery-batches, each in a virtual environment of its own and in its best documented batching
configuration (benchmarks/served/). All render the same items with the same generator, write a
PNG each with fsync and commit a row each; the bare loop stores nothing. In turn, several
rounds; medians of the ratios. Opt-in (`make peers`): the first run installs the peers."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import orjson

from benchmarks import durable, environments, farm, load, sides, work
from benchmarks.served import batch
from tests.servers import ValkeyServer, free_port

CONNECTIONS = 8 * work.BATCH  # clients that each wait for an answer: more would only queue
WARM = 4 * work.BATCH  # images before the clock starts: BentoML learns its window in them
LOST = (
    "by the service's own code; requests wait in memory: a kill of the server loses them, "
    "and nothing remembers that they were asked for"
)


@dataclass(frozen=True, slots=True)
class Peer:
    """path: where requests go; empty: through the broker. listed: the body is a list of one
    row under this name. durable: what survives a kill of it, beside what its database says."""

    name: str
    module: str
    requirements: tuple[str, ...]
    path: str = ""
    listed: str = ""
    durable: str = LOST

    def python(self) -> str:
        home = self.module.removeprefix("benchmarks.served.with_")
        return str(environments.python(home, self.requirements))

    def side(self, model: str, count: int, salt: int) -> Iterator[sides.Run]:
        rows = [work.row(item, model) for item in work.items(model, count + WARM, salt)]
        render = self._over_http if self.path else self._over_broker
        with TemporaryDirectory(prefix="pm-") as folder:
            rate = render(model, Path(folder), rows[:count], rows[count:])
            yield sides.Run(self.name, rate, f"{_kept(Path(folder))}, {self.durable}")

    def _over_http(
        self, model: str, folder: Path, rows: Sequence[Row], warm: Sequence[Row]
    ) -> float:
        port = free_port()
        url = f"http://127.0.0.1:{port}{self.path}"
        with self._process(model, folder, "-m", self.module, str(port)) as process:
            self._until_it_answers(url, process, self._body(warm[0]))
            load.post(url, map(self._body, warm[1:]), connections=CONNECTIONS)
            begun = time.perf_counter()
            load.post(url, map(self._body, rows), connections=CONNECTIONS)
            took = time.perf_counter() - begun
        _check(folder, len(rows) + len(warm))
        return len(rows) / took

    def _over_broker(
        self, model: str, folder: Path, rows: Sequence[Row], warm: Sequence[Row]
    ) -> float:
        with ValkeyServer() as valkey:
            broker = valkey.url.replace("unix://", "redis+socket://") + "?virtual_host=0"
            worker = ("-m", "celery", "-A", self.module, "worker", "--without-gossip")
            environ = _environ(model, folder, BENCH_BROKER=broker)
            with self._process(model, folder, *worker, BENCH_BROKER=broker) as process:
                for some, stored in ((warm, len(warm)), (rows, len(warm) + len(rows))):
                    begun = self._send(some, environ)
                    _until_stored(folder, stored, process)
                    took = time.perf_counter() - begun
        _check(folder, len(rows) + len(warm))
        return len(rows) / took

    def _body(self, row: Row) -> bytes:
        return orjson.dumps({self.listed: [row]} if self.listed else row)

    def _send(self, rows: Sequence[Row], environ: dict[str, str]) -> float:
        """Sends a message an image; when the first left, on the clock of `perf_counter`."""
        with subprocess.Popen(
            [self.python(), "-m", self.module],
            env=environ,
            cwd=environments.ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as sender:
            assert sender.stdin and sender.stdout
            sender.stdout.readline()  # it has imported celery
            begun = time.perf_counter()
            sender.stdin.write(b"\n".join(map(orjson.dumps, rows)))
            sender.stdin.close()
        if sender.returncode:
            raise SystemExit(f"{self.name}: the sender ended with status {sender.returncode}")
        return begun

    @contextmanager
    def _process(
        self, model: str, folder: Path, *arguments: str, **environ: str
    ) -> Iterator[subprocess.Popen[bytes]]:
        """The peer, with all that it starts; its log is shown when the block fails."""
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [self.python(), *arguments],
                env=_environ(model, folder, **environ),
                cwd=environments.ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                yield process
            except BaseException:
                print((folder / "log").read_text(errors="replace")[-4000:], flush=True)
                raise
            finally:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(30)
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _until_it_answers(self, url: str, process: subprocess.Popen[bytes], body: bytes) -> None:
        deadline = time.monotonic() + 180
        while True:
            with suppress(httpx.TransportError):
                answer = httpx.post(url, content=body, headers=JSON, timeout=60)
                if answer.is_client_error and answer.status_code != NOT_YET:
                    raise SystemExit(f"{self.name}: {answer.status_code} {answer.text}")
                if answer.is_success:
                    return
            _check_alive(self.name, process, deadline)
            time.sleep(0.5)


Row = dict[str, object]
NOT_YET = 404  # Ray Serve's proxy, before it knows the route
JSON = {"content-type": "application/json"}
PEERS = (
    Peer("LitServe", "benchmarks.served.with_litserve", ("litserve==0.2.19",), "/predict"),
    Peer("Ray Serve", "benchmarks.served.with_ray_serve", ("ray[serve]==2.60.0",), "/"),
    Peer("BentoML", "benchmarks.served.with_bentoml", ("bentoml==1.4.40",), "/render", "asked"),
    Peer(
        "celery-batches",
        "benchmarks.served.with_celery_batches",
        ("celery-batches==0.11", "celery[redis]==5.6.3"),
        durable="by the task's own code; a message an image in Valkey, acknowledged when its "
        "batch is stored: after a kill the messages in hand come back when the broker's "
        "visibility timeout (an hour) is over",
    ),
)


def _environ(model: str, folder: Path, **more: str) -> dict[str, str]:
    """For a peer's process: what it renders where, its own files in the folder, and none of
    the reports that some send home."""
    given = {k: v for k, v in os.environ.items() if not k.startswith(("PROMPTMILL_", "PYTHON"))}
    return {
        **given,
        **work.ONE_THREAD,
        **more,
        batch.MODEL: model,
        batch.FOLDER: str(folder),
        "BENTOML_HOME": str(folder / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        "RAY_TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def _until_stored(folder: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    db, deadline = batch.rows(folder), time.monotonic() + 300
    while db.execute("SELECT count(*) FROM images").fetchone()[0] < count:
        _check_alive("celery-batches", process, deadline)
        time.sleep(0.02)
    db.close()


def _check_alive(name: str, process: subprocess.Popen[bytes], deadline: float) -> None:
    if process.poll() is not None:
        raise SystemExit(f"{name} ended with status {process.returncode}")
    if time.monotonic() > deadline:
        raise SystemExit(f"{name} is not ready in time")


def _check(folder: Path, count: int) -> None:
    """Every picture must be there, with the size that its row says."""
    db = batch.rows(folder)
    sizes = dict(db.execute("SELECT number, bytes FROM images"))
    db.close()
    found = {int(path.stem): path.stat().st_size for path in folder.glob("*.png")}
    if len(sizes) != count or sizes != found:
        raise SystemExit(f"of {count} images {len(sizes)} rows and {len(found)} files are there")


def _kept(folder: Path) -> str:
    db = batch.rows(folder)
    told = durable.of_sqlite(lambda statement: db.execute(statement).fetchone()[0])
    db.close()
    return f"{durable.FILES}; {told}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--peer", choices=[peer.name for peer in PEERS], action="append")
    given = parser.parse_args(arguments)
    chosen = [peer for peer in PEERS if not given.peer or peer.name in given.peer]
    for peer in chosen:
        peer.python()
    versions = {f"{peer.name} is": " ".join(peer.requirements) for peer in chosen}
    beside: dict[str, sides.Side] = {peer.name: peer.side for peer in chosen}
    farm.compare("peers", beside, quick=given.quick, **versions)


if __name__ == "__main__":
    main()
