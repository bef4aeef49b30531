"""What the last full runs found: `results.json` holds each benchmark's own report with its
date; RESULTS.md, the README's table and the model card's are made of that file and nothing
else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks import sides, work

HERE = Path(__file__).parent
FILE, PAGE, README = HERE / "results.json", HERE / "RESULTS.md", HERE.parent / "README.md"
CARD = HERE.parent / "docs" / "models" / "emoji-gan.md"
BEGIN, END = "<!-- figures of the last full run -->\n", "<!-- end of figures -->\n"
BEGIN_JUDGED = "<!-- figures of the last judged run -->\n"
JUDGED = "judged"  # the report of `compress` with a judge, which no full run has
NONE = "No full run is recorded: `make bench` measures and writes its figures here.\n"
NETWORK, WHOLE, TIMES = "network, ", "text to pixels, ", ", speed-up"  # of `compress`
COMPARISONS = ("peers", "farm")  # the first that was run stands in the README

Report = Mapping[str, Any]
Results = Mapping[str, Report]


def read() -> Results:
    found: Results = json.loads(FILE.read_text())
    return found


def write(results: Results) -> None:
    """Keeps the reports and makes the pages of them."""
    ordered = {name: results[name] for name in sorted(results)}
    FILE.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(whole(ordered))
    README.write_text(placed(README.read_text(), table(ordered)))
    CARD.write_text(card(CARD.read_text(), ordered))


def placed(text: str, figures: str, begin: str = BEGIN) -> str:
    """`text` with `figures` between the markers."""
    before, _, rest = text.partition(begin)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit("the page has no place for the figures")
    return f"{before}{begin}\n{figures}\n{END}{after}"


# benchmarks/RESULTS.md: everything


def whole(results: Results) -> str:
    lines = [
        "# Results",
        "",
        "Written by `make bench`; each figure is measured, none typed in.",
        "",
    ]
    if not results:
        lines += [NONE]
    for name, report in results.items():
        lines += [f"## {name}", "", f"{place(report)}; it took {report['seconds']:.0f} s.", ""]
        lines += [f"- {key}: {value}" for key, value in report["settings"].items()]
        lines += ["", "| figure | value | rounds | unit | aim |", "|---|---:|---:|---|---|"]
        lines += [
            f"| {r['name']} | {number(r['value'])} | {rounds(r)} | {r['unit']} | {aim(r)} |"
            for r in report["results"]
        ]
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


def place(report: Report) -> str:
    machine = report["machine"]
    return (
        f"{report['date']}, {machine['cpu']}, {machine['cores']} cores, Python {machine['python']}"
    )


def aim(result: Mapping[str, Any]) -> str:
    """The aim, and whether the value reaches it."""
    if result["aim"] is None:
        return ""
    lower = result["better"] == "lower"
    reached = result["value"] <= result["aim"] if lower else result["value"] >= result["aim"]
    told = f"at {'most' if lower else 'least'} {result['aim']:g}"
    return told if reached else f"{told}: **missed**"


def rounds(result: Mapping[str, Any]) -> str:
    """From the least to the most of the rounds whose median the value is."""
    low, high = result.get("low"), result.get("high")
    return "" if low is None or high is None else f"{number(low)} to {number(high)}"


def number(value: float) -> str:
    """Four digits that count, without an exponent."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


# the README: images per second of each side


def table(results: Results) -> str:
    name = next((name for name in COMPARISONS if name in results), None)
    if name is None:
        return NONE
    report = results[name]
    heads = [f"{model}, images/s | of the bare loop" for model in work.MODELS]
    lines = [f"| | {' | '.join(heads)} | durable |", f"|---|{'---:|' * 2 * len(heads)}---|"]
    lines += [_row(report, side) for side in _sides(report)]
    return "\n".join([*lines, "", f"One run of `{name}`: {place(report)}."]) + "\n"


def _row(report: Report, side: str) -> str:
    found = {r["name"]: r for r in report["results"]}
    cells = [side]
    for model in work.MODELS:
        cells.append(number(found[sides.rate_of(model, side)]["value"]))
        ratio = {"value": 1.0} if side == sides.BARE else found[sides.ratio_of(model, side)]
        spread = f" ({ratio['low']:.2f} to {ratio['high']:.2f})" if ratio.get("low") else ""
        cells.append(f"{ratio['value']:.2f}{spread}")
    return f"| {' | '.join(cells)} | {report['settings'][side]} |"


def _sides(report: Report) -> Iterator[str]:
    """In the order in which they were measured."""
    beginning = sides.rate_of(work.MODELS[0], "")
    for result in report["results"]:
        if result["unit"] == "images/s" and result["name"].startswith(beginning):
            yield result["name"].removeprefix(beginning)


# the model card: each form of the generator beside the network in float32


def card(text: str, results: Results) -> str:
    return placed(placed(text, speeds(results)), agreements(results), BEGIN_JUDGED)


def speeds(results: Results) -> str:
    report = results.get("compress")
    if report is None:
        return NONE
    found = _values(report)
    lines = ["| form | network alone | text to pixels | file |", "|---|---:|---:|---:|"]
    for form in _forms(found):
        size = found.get(f"{form}, file")
        cells = [*_times(found, form), f"{size:.1f} MB" if size else ""]
        lines.append(f"| {form} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"{place(report)}."]) + "\n"


def agreements(results: Results) -> str:
    """What the judge says of each form, and the ratios of that run."""
    report = results.get(JUDGED)
    if report is None:
        return NONE
    found = _values(report)
    heads = ("form", "rank 5", "Fréchet distance", "PSNR, dB", "network alone", "text to pixels")
    lines = [f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) - 1)}"]
    for form in _forms(found):
        close = found.get(f"{form}, PSNR to float32")
        cells = [f"{found[f'{form}, rank 5']:.3f}", f"{found[f'{form}, Fréchet distance']:.1f}"]
        cells += [f"{close:.1f}" if close else "", *_times(found, form)]
        lines.append(f"| {form} | {' | '.join(cells)} |")
    told = "; ".join(f"{k}: {v}" for k, v in report["settings"].items())
    return "\n".join([*lines, "", f"{place(report)}; {told}."]) + "\n"


def _values(report: Report) -> dict[str, float]:
    return {r["name"]: r["value"] for r in report["results"]}


def _forms(found: Mapping[str, float]) -> Iterator[str]:
    for name in found:
        form = name.removeprefix(NETWORK).removesuffix(TIMES)
        if name == f"{NETWORK}{form}{TIMES}":
            yield form


def _times(found: Mapping[str, float], form: str) -> list[str]:
    """How many times as fast as the first form: the network alone, text to pixels."""
    return [f"{found[part + form + TIMES]:.1f}×" for part in (NETWORK, WHOLE)]
