"""Commands against a stub of the API: what they print, what they send, how they exit."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from promptmill import cli, errors
from promptmill.cli import output, progress
from tests.unit.client_stub import Fault, StubFarm, serving

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def farm(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubFarm]:
    with serving() as stub:
        monkeypatch.setenv("PROMPTMILL_URL", stub.url)
        yield stub


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*args: str) -> tuple[int, str, str]:
        code = cli.run(args)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


@pytest.mark.parametrize("args", [(), ("--help",), *((name, "--help") for name in cli.COMMANDS)])
def test_every_command_explains_itself(run: Run, args: tuple[str, ...]) -> None:
    code, out, err = run(*args)
    assert code == (0 if args else 2)
    assert "Usage: promptmill" in out + err


@pytest.mark.parametrize(
    "args",
    [
        ("nonsense",),
        ("show",),
        ("submit", "x.txt", "--n", "0"),
        ("submit", "x.txt", "--map", "caption"),
        ("jobs", "--state", "odd"),
        ("up", "--port", "70000"),
    ],
)
def test_wrong_usage_exits_with_2(run: Run, args: tuple[str, ...]) -> None:
    code, out, err = run(*args)
    assert (code, out) == (2, "")
    assert "Error:" in err


def test_submit_prints_the_job_and_sends_the_options(
    farm: StubFarm, run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"caption": "a cat", "prompt": "a cat"}\n')
    code, out, err = run(
        *("submit", str(path), "--model", "stub", "--size", "64x64", "--negative", "blurry"),
        *("--seed", "7", "--n", "2", "--priority", "bulk", "--name", "mine", "--packing", "tar"),
        *("--format", "webp", "--map", "prompt=caption", "--map", "seed=s"),
        *("--set", "guidance=2", "--set", "guidance=7.5", "--set", "steps=[1,2]"),
        *("--set", "webhook=https://x/y?a=b", "--on-unsupported", "warn"),
        *("--idempotency-key", "k1"),
    )
    assert (code, out) == (0, "job_1\n")
    assert "1 image of stub" in err
    [sent] = farm.seen("POST", "/v1/jobs")
    assert sent.headers["idempotency-key"] == "k1"
    assert sent.query == {
        "model": ["stub"],
        "size": ["64x64"],
        "negative_prompt": ["blurry"],
        "seed": ["7"],
        "n": ["2"],
        "priority": ["bulk"],
        "name": ["mine"],
        "packing": ["tar"],
        "format": ["webp"],
        "map": ["prompt=caption", "seed=s"],
        "guidance": ["2", "7.5"],
        "steps": ["1", "2"],
        "webhook": ["https://x/y?a=b"],
        "on_unsupported": ["warn"],
    }


def test_what_is_set_stays_text_where_it_is_text(farm: StubFarm, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_text("a cat\n")
    team = '{"team": "x"}'
    told = {"fingerprint": "123e4567", "name": "1.10", "negative_prompt": "007", "metadata": team}
    told |= {"lora": '["ink","1.0"]', "seed": "7"}
    pairs = [part for name, value in told.items() for part in ("--set", f"{name}={value}")]
    assert run("submit", str(path), *pairs)[0] == 0
    [sent] = farm.seen("POST", "/v1/jobs")
    wanted = {name: [value] for name, value in told.items()} | {"lora": ["ink", "1.0"]}
    assert sent.query == wanted


def test_standard_input_is_read_as_text_or_json_lines(farm: StubFarm, tmp_path: Path) -> None:
    for text, kind in (("a cat\na dog\n", "text/plain"), ('{"prompt":"x"}\n', "x-ndjson")):
        done = subprocess.run(
            [sys.executable, "-m", "promptmill", "submit", "-", "--json"],
            input=text,
            env={"PROMPTMILL_URL": farm.url},
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(done.stdout)["object"] == "job"
        assert kind in farm.seen("POST", "/v1/jobs")[-1].headers["content-type"]


def test_watch_and_out_end_with_the_verdict_of_the_job(
    farm: StubFarm, run: Run, tmp_path: Path
) -> None:
    good, bad = tmp_path / "good.txt", tmp_path / "bad.txt"
    good.write_text("a cat\n")
    bad.write_text("a cat\nbad\n")
    code, out, err = run("submit", str(good), "--watch")
    assert (code, out) == (0, "job_1\n")
    assert "1/1 images" in err
    code, out, err = run("submit", str(bad), "--out", str(tmp_path / "out"), "--json")
    assert code == 1
    assert json.loads(out)["counts"]["failed"] == 1
    assert "1 failed (`promptmill images job_2 --state failed`)" in err
    assert len((tmp_path / "out" / "failures.jsonl").read_text().splitlines()) == 1


def test_a_dry_run_shows_the_plan_and_makes_nothing(
    farm: StubFarm, run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a cat\na dog\n")
    code, out, _ = run("submit", str(path), "--dry-run")
    assert code == 0 and "images     2" in out and "a cat" in out
    assert json.loads(run("submit", str(path), "--dry-run", "--json")[1])["images"] == 2
    assert not farm.jobs


def test_a_dry_run_says_how_many_problems_it_does_not_list(
    farm: StubFarm, run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a cat\n")
    problems = [{"line": 2, "field": "prompt", "message": "a row needs a prompt"}]
    plan = {"valid": False, "problems": {"total": 1201, "data": problems}}
    farm.fault("POST", Fault(200, plan))
    code, _, err = run("submit", str(path), "--dry-run")
    assert code == 1
    assert err.splitlines() == [
        "problem: line 2: prompt: a row needs a prompt",
        "1,200 more problems are not listed",
    ]


def test_reading_commands_print_tables_and_json(farm: StubFarm, run: Run) -> None:
    farm.add(["a cat", "bad"])["notice"] = "no worker serves the model stub now"
    assert "job_1" in run("jobs")[1]
    assert [json.loads(line)["id"] for line in run("jobs", "--json")[1].splitlines()] == ["job_1"]
    _, shown, _ = run("show", "job_1")
    assert "2 (1 done, 1 failed)" in shown
    assert "no worker serves the model stub now" in shown
    assert json.loads(run("show", "job_1", "--json")[1])["state"] == "completed"
    table = run("images", "job_1")[1].splitlines()
    assert len(table) == 3 and "[render_failed] it is bad: bad" in table[2]
    rows = run("images", "job_1", "--state", "failed", "--json")[1].splitlines()
    assert [json.loads(row)["index"] for row in rows] == [1]
    assert "expanded_prompt" not in table[0]
    farm.images["job_1"][0]["expanded_prompt"] = "a cat, a furry one"
    table = run("images", "job_1")[1].splitlines()
    assert table[0].endswith("  expanded_prompt") and table[1].endswith("  a cat, a furry one")
    assert "  a cat  " in table[1] and table[2].endswith("  -")


def test_steering_commands_print_the_new_state(farm: StubFarm, run: Run) -> None:
    farm.add(["a"])
    for command, state in (("pause", "paused"), ("resume", "queued"), ("cancel", "cancelled")):
        assert run(command, "job_1")[:2] == (0, f"job_1: {state}\n")
    assert json.loads(run("cancel", "job_1", "--json")[1])["state"] == "cancelled"
    assert run("retry", "job_1", "--code", "render_failed", "--code", "worker_crashed")[0] == 0
    [sent] = farm.seen("POST", "/v1/jobs/job_1/retry")
    assert json.loads(sent.body) == {"codes": ["render_failed", "worker_crashed"]}
    assert run("delete", "job_1", "--yes")[:2] == (0, "job_1: deleted\n")
    assert not farm.jobs


def test_download_says_what_it_fetched(farm: StubFarm, run: Run, tmp_path: Path) -> None:
    farm.add(["a", "b", "bad"])
    code, out, _ = run("download", "job_1", str(tmp_path / "out"))
    assert code == 0 and "2 of 3 images (2 new, 1 failed" in out
    code, out, _ = run("download", "job_1", str(tmp_path / "out"), "--json")
    assert json.loads(out)["fetched"] == 0


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (
            Fault(400, errors.BadRow("size 65x65 is unknown", param="size", line=3).body()),
            "line 3: size 65x65 is unknown; --dry-run lists such rows",
        ),
        (Fault(400, errors.BadRequest("not so", param="n").body()), "not so (field n)"),
        (Fault(400, errors.BadRequest("no such column", line=1).body()), "no such column\n"),
        (Fault(401, errors.Unauthorized().body()), "a valid API key is required"),
        (Fault(404, errors.ModelNotFound("no model x (it has y)").body()), "no model x (it has y)"),
    ],
)
def test_a_refusal_is_one_line_and_exit_code_1(
    farm: StubFarm, run: Run, tmp_path: Path, fault: Fault, told: str
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("x\n")
    farm.fault("POST", fault)
    code, out, err = run("submit", str(path))
    assert (code, out) == (1, "")
    assert err.startswith("promptmill: ") and told.lower() in err.lower()
    assert len(err.splitlines()) == 1


def test_errors_of_this_machine_are_one_line_too(
    farm: StubFarm, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm.add(["a"])
    blocked = tmp_path / "file"
    blocked.write_text("")
    for args, told in (
        (("submit", str(tmp_path / "none.txt")), "none.txt: No such file"),
        (("download", "job_1", str(blocked / "x")), "Not a directory"),
        (("submit", "s3://bucket"), "is not s3://BUCKET/KEY"),
        (("show", "job_7"), "no such job"),
    ):
        code, _, err = run(*args)
        assert code == 1 and told in err and len(err.splitlines()) == 1, err
    monkeypatch.setenv("PROMPTMILL_URL", "http://127.0.0.1:9")
    code, _, err = run("jobs")
    assert code == 1 and "`promptmill up`" in err and len(err.splitlines()) == 1
    monkeypatch.setenv("PROMPTMILL_SLOTSS", "3")
    code, _, err = run("migrate")
    assert (code, err) == (
        1,
        "promptmill: PROMPTMILL_SLOTSS is not a setting of promptmill: did you mean PROMPTMILL_SLOTS?\n",
    )


def test_a_full_disk_is_named(farm: StubFarm, run: Run, tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    farm.add(["a"])
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / ".metadata.jsonl.part").symlink_to(full)
    code, _, err = run("download", "job_1", str(folder))
    assert code == 1 and "No space left on device" in err
    assert not (folder / "metadata.jsonl").exists()


def test_plain_progress_names_count_rate_and_time_left(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with progress.meter("job_1", "images") as bar:
        bar.update(250, 1000, rate=50.0, eta=15.0, note="2 failed")
        bar.update(260, 1000, rate=50.0, eta=15.0)
        bar.update(1000, 1000, rate=50.0, eta=0.0)
    assert capsys.readouterr().err.splitlines() == [
        "job_1: 250/1,000 images, 50 images/s, 15 s left, 2 failed",
        "job_1: 1,000/1,000 images, 50 images/s",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.24, "0.2 s"), (59.6, "1 min 0 s"), (250, "4 min 10 s"), (18_120, "5 h 2 min")],
)
def test_durations_are_short(seconds: float | None, text: str) -> None:
    assert output.duration(seconds) == text


def test_sizes_are_short() -> None:
    assert [output.size(n) for n in (0, 999, 4_200_000, 3e13)] == [
        "0 B",
        "999 B",
        "4.2 MB",
        "30.0 TB",
    ]


def test_a_rate_counts_what_this_process_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    now: Any = iter([0.0, 10.0, 20.0])
    monkeypatch.setattr("promptmill.cli.progress.time.monotonic", lambda: next(now))
    pace = progress.Pace()
    assert pace.of(500, 1000) == (0.0, None)
    assert pace.of(700, 1000) == (10.0, 30.0)


def test_a_rate_needs_time_and_no_time_is_left_below_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    pace = progress.Pace()
    assert pace.of(0, 8) == (0.0, None)
    now[0] = 100.5
    assert pace.of(8, 8) == (0.0, None)
    now[0] = 102.0
    assert pace.of(10, 8) == (5.0, 0.0)


def test_a_cancelled_job_shows_what_was_rendered(farm: StubFarm, run: Run) -> None:
    job = farm.add(["a cat", "a dog", "a cow", "bad"])
    job["state"] = "cancelled"
    job["counts"] |= {"done": 1, "failed": 1, "cancelled": 2}
    code, _, err = run("watch", "job_1")
    assert code == 1 and "2/4 images" in err and "4/4" not in err


def test_submit_warns_of_a_notice(farm: StubFarm, run: Run, tmp_path: Path) -> None:
    farm.fault("POST", Fault(202, farm.add(["a cat"]) | {"notice": "no worker serves it"}))
    (tmp_path / "a.txt").write_text("a cat\n")
    assert "warning: no worker serves it\n" in run("submit", str(tmp_path / "a.txt"))[2]
