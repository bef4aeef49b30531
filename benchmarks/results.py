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
    CARD.write_text(placed(CARD.read_text(), speeds(ordered)))


def placed(text: str, figures: str) -> str:
    """`text` with `figures` between the markers."""
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit("the page has no place for the figures")
    return f"{before}{BEGIN}\n{figures}\n{END}{after}"


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


def speeds(results: Results) -> str:
    report = results.get("compress")
    if report is None:
        return NONE
    found = {r["name"]: r["value"] for r in report["results"]}
    lines = ["| form | network alone | text to pixels | file |", "|---|---:|---:|---:|"]
    for name in found:
        form = name.removeprefix(NETWORK).removesuffix(TIMES)
        if name != f"{NETWORK}{form}{TIMES}":
            continue
        size = found.get(f"{form}, file")
        cells = [f"{found[part + form + TIMES]:.1f}×" for part in (NETWORK, WHOLE)]
        lines.append(f"| {form} | {' | '.join(cells)} | {f'{size:.1f} MB' if size else ''} |")
    return "\n".join([*lines, "", f"{place(report)}."]) + "\n"
