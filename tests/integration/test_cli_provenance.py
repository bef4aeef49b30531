"""The commands about where pictures come from, against the API."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from promptmill import cli
from promptmill.store import control
from tests.integration.api_farm import ApiFarm

pytestmark = pytest.mark.servers

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[ApiFarm]:
    with ApiFarm(tmp_path_factory.mktemp("farm"), valkey_url) as served:
        yield served


@pytest.fixture(scope="module")
def job(farm: ApiFarm) -> str:
    id: str = farm.submit(["a heart", {"prompt": "a star", "seed": 9}])["id"]
    farm.worker.drain()
    control.finish_ready(farm.db)
    return id


@pytest.fixture
def run(
    farm: ApiFarm,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Run:
    monkeypatch.setenv("PROMPTMILL_URL", farm.url)
    monkeypatch.chdir(tmp_path)

    def command(*args: str) -> tuple[int, str, str]:
        code = cli.run(args)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


def test_a_manifest_and_its_pictures_are_checked(
    farm: ApiFarm, run: Run, job: str, tmp_path: Path
) -> None:
    code, out, _ = run("manifest", job)
    assert (code, out) == (0, f"{job}-manifest.jsonl\n")
    assert run("download", job, "dl")[0] == 0
    key = farm.http.get("/v1/provenance/key").json()
    (tmp_path / "key.pem").write_text(key["pem"])
    for given in (key["public_key"], "key.pem"):
        code, out, err = run("verify-manifest", out_of(job), "dl", "--key", given)
        assert code == 0, err
        assert "2 of 2 images are there and right" in out
        assert key["id"] in out and "own word" not in out
    assert "own word" in run("verify-manifest", out_of(job))[1]
    (tmp_path / "dl" / "images" / "000000001.png").write_bytes(b"other")
    code, out, err = run("verify-manifest", out_of(job), "dl", "--json")
    told = json.loads(out)
    assert (code, told["complete"], told["damaged"], told["found"]) == (1, False, [1], 1)
    assert run("verify-manifest", out_of(job), "dl")[2].endswith("1 damaged: 1\n")


def out_of(job: str) -> str:
    return f"{job}-manifest.jsonl"


def test_a_changed_manifest_is_one_line(run: Run, job: str, tmp_path: Path) -> None:
    run("manifest", job, "--prompts", "-o", "m.jsonl")
    text = (tmp_path / "m.jsonl").read_text()
    assert '"a star"' in text
    (tmp_path / "m.jsonl").write_text(text.replace('"seed":9', '"seed":8'))
    code, out, err = run("verify-manifest", "m.jsonl")
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith("promptmill: line 4: the manifest was changed")


def test_a_picture_leads_to_its_row(farm: ApiFarm, run: Run, job: str, tmp_path: Path) -> None:
    data = farm.http.get(f"/v1/jobs/{job}/images/1/content").content
    (tmp_path / "found.png").write_bytes(data)
    for given in ("found.png", hashlib.sha256(data).hexdigest()):
        code, out, _ = run("provenance", given)
        assert code == 0
        for text in (job, "a star", "squares-", "fp-squares-1", "seed         9"):
            assert text in out
    code, out, err = run("provenance", "0" * 64)
    assert (code, out) == (1, "")
    assert "no image of your jobs" in err
    assert run("provenance", "nowhere.png")[0] == 1


def test_the_log_of_webhooks_is_shown(farm: ApiFarm, run: Run) -> None:
    id = farm.submit(["a bell"], webhook="http://hook.example/x")["id"]
    code, out, _ = run("webhooks", id)
    assert code == 0
    assert "job.queued  pending, next try" in out
    assert "to http://hook.example/x" in out
    [event] = [json.loads(line) for line in run("webhooks", id, "--json")[1].splitlines()]
    code, _, err = run("webhooks", id, "--redeliver", "--event", event["id"])
    assert code == 0
    assert "1 event will be sent again" in err
    assert run("webhooks", id, "--event", "evt_1")[0] == 2
