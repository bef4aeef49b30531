"""The pages of figures are what results.json gives, and only a full run changes that file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as bench
from benchmarks import farm, report, results, sides, work

DURABLE = {sides.BARE: "nothing", sides.own("fleet", "tar"): "all", farm.PLAIN: "files"}


def compared(times: float = 1.0) -> dict[str, Any]:
    """A report of the form that `farm` prints, of figures made up for this test."""
    figures = []
    for model in work.MODELS:
        rates = {side: [10.0 * n, 20.0 * n * times] for n, side in enumerate(DURABLE, start=1)}
        figures += sides.figures(model, rates, {sides.own("fleet", "tar"): 99.0})
    return report.report("farm", figures, **DURABLE, rounds=2)


@pytest.fixture
def pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree of its own, nothing recorded yet."""
    for name in ("FILE", "PAGE", "README", "CARD"):
        monkeypatch.setattr(results, name, tmp_path / getattr(results, name).name)
    place = f"above\n{results.BEGIN}{results.END}below\n"
    results.README.write_text(place)
    results.CARD.write_text(f"{place}{results.BEGIN_JUDGED}{results.END}")
    results.write({})
    return tmp_path


def test_the_pages_of_the_tree_are_what_the_recorded_runs_give() -> None:
    recorded, readme = results.read(), results.README.read_text()
    assert readme == results.placed(readme, results.table(recorded))
    assert results.PAGE.read_text() == results.whole(recorded)
    card = results.CARD.read_text()
    assert card == results.card(card, recorded)


def test_every_benchmark_has_a_module_and_every_module_that_prints_a_report_is_run() -> None:
    texts = {p.stem: p.read_text() for p in results.HERE.glob("*.py")}
    printing = {name for name, text in texts.items() if "    show(" in text or "compare(" in text}
    assert printing == {*bench.ALWAYS, *bench.ASKED_FOR}


def test_a_full_run_writes_the_figures_a_quick_one_touches_nothing(
    pages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "run", lambda name, *arguments: compared())
    before = {path: path.read_text() for path in pages.iterdir()}
    assert bench.main(["--quick", "--only", "farm"]) == 0
    assert {path: path.read_text() for path in pages.iterdir()} == before
    assert bench.main(["--only", "farm"]) == 0
    readme = (pages / "README.md").read_text()
    assert readme.startswith("above\n") and readme.endswith("below\n")
    assert "| bare loop | 15 | 1.00 | 15 | 1.00 | nothing |" in readme
    assert (
        f"| {farm.PLAIN} | 45 | 3.00 (3.00 to 3.00) | 45 | 3.00 (3.00 to 3.00) | files |" in readme
    )
    page = (pages / "RESULTS.md").read_text()
    assert "at least 99: **missed**" in page
    assert "| stub: bare loop | 15 | 10 to 20 | images/s |  |" in page


def test_a_run_of_one_benchmark_leaves_the_others_as_they_were(
    pages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "run", lambda name, *arguments: compared())
    bench.main(["--only", "farm,queue"])
    first = results.read()
    monkeypatch.setattr(bench, "run", lambda name, *arguments: None)
    assert bench.main(["--only", "queue"]) == 1
    assert results.read() == first
    assert set(first) == {"farm", "queue"}


def test_the_table_is_of_one_run(pages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ratio between rows of different runs would say nothing."""
    reports = {"farm": compared(), "peers": compared(2.0)}
    monkeypatch.setattr(bench, "run", lambda name, *arguments: reports[name])
    bench.main(["--only", "peers,farm"])
    readme = (pages / "README.md").read_text()
    assert "| bare loop | 25 | 1.00" in readme and "| bare loop | 15" not in readme
    assert "One run of `peers`" in readme


def test_the_model_card_shows_each_form_beside_the_network_in_float(
    pages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = [
        report.Figure("network, int8", 650.0, "images/s"),
        report.Figure("network, int8, speed-up", 5.93, "times"),
        report.Figure("text to pixels, int8, speed-up", 6.97, "times"),
        report.Figure("int8, PSNR to float32", 44.3, "dB"),
        report.Figure("int8, file", 7.37, "MB"),
    ]
    told = report.report("compress", figures, batch=8)
    monkeypatch.setattr(bench, "run", lambda name, *arguments: told)
    bench.main(["--only", "compress"])
    rows = [row for row in results.CARD.read_text().splitlines() if row.startswith("| int8")]
    assert rows == ["| int8 | 5.9× | 7.0× | 7.4 MB |"]


def test_what_a_judge_says_stands_beside_the_full_run_and_never_in_its_place(
    pages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = [
        report.Figure("network, int8, speed-up", 2.5, "times"),
        report.Figure("text to pixels, int8, speed-up", 3.0, "times"),
        report.Figure("int8, PSNR to float32", 46.52, "dB"),
        report.Figure("int8, rank 5", 0.6228, "of 1"),
        report.Figure("int8, Fréchet distance", 221.04, "", better="lower"),
    ]
    told, asked = report.report("compress", figures, agreement="one name in 2"), []
    monkeypatch.setattr(bench, "run", lambda *arguments: asked.append(arguments) or told)
    bench.main(["--judge", "one", "other", "--data", "set"])
    assert asked == [("compress", "--quick", "--judge", "one", "other", "--data", "set")]
    assert set(results.read()) == {results.JUDGED}
    card = results.CARD.read_text()
    assert "| int8 | 0.623 | 221.0 | 46.5 | 2.5× | 3.0× |" in card and "one name in 2." in card
    assert card.partition(results.BEGIN_JUDGED)[0].count("|") == 0


def test_the_pages_can_be_made_anew(pages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "run", lambda name, *arguments: compared())
    bench.main(["--only", "farm"])
    written = (pages / "README.md").read_text()
    (pages / "README.md").write_text(f"{results.BEGIN}typed by hand{results.END}")
    bench.main(["--write"])
    assert (pages / "README.md").read_text() in written
    with pytest.raises(SystemExit, match="no place"):
        results.placed("no markers", "")


def test_an_unknown_benchmark_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(["--only", "farn"])
    assert "there is no benchmark farn" in capsys.readouterr().err


def test_a_figure_is_printed_when_it_is_there_and_the_report_last(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def figures() -> Iterator[report.Figure]:
        yield report.Figure("first", 2.5, "images/s")
        assert "2.5 images/s   first" in capsys.readouterr().out
        yield report.Figure("second", 1.0, "GB", 2.0, "lower")

    report.show("some", figures(), batch=8)
    *lines, last = capsys.readouterr().out.splitlines()
    assert [" ".join(line.split()) for line in lines] == ["1 GB second (aim 2, lower is better)"]
    told = json.loads(last)
    assert told["settings"] == {"batch": 8}
    assert [each["name"] for each in told["results"]] == ["first", "second"]
