"""From prompts to a dataset on one machine: starts the embedded farm in a temporary folder,
renders `prompts.jsonl`, downloads, verifies a sample, stops the farm.

    python -m examples.demo --out demo-out
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from promptmill import contact_sheet, errors, local
from promptmill.cli import images as cli_images
from promptmill.cli import jobs as cli_jobs
from promptmill.client import Client, Job

PROMPTS = Path(__file__).with_name("prompts.jsonl")
SHEET = 96  # pictures on the contact sheet
VERIFIED = 16


class Phases:
    """Seconds spent in each named part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str, what: str) -> Iterator[None]:
        print(f"== {what}", flush=True)
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 2)


def demo(out: Path, *, model: str | None, workers: int, prompts: Path) -> dict[str, Any]:
    """Runs it all and returns the summary, which also lies in `out`."""
    phase = Phases()
    if (out / "summary.json").exists():  # an earlier demo's: its pictures would be mixed in
        shutil.rmtree(out / "images", ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix="promptmill-demo-"))
    farm = local.Farm(folder, workers=workers, model=model, port=0, told=_tell)
    try:
        with phase("start", "starting the embedded farm: Valkey, API, control, worker"):
            farm.start()
        print(f"   {farm.url}  (the dashboard, while this runs)")
        with Client(farm.url) as client:
            with phase("submit", f"submitting {prompts.name}"):
                job = client.submit(prompts, name="demo")
            print(f"   {job.id}: {job.counts.total:,} images of {job.data['model']}")
            with phase("render", "rendering"):
                cli_jobs.follow(job, farm.check)
            with phase("download", f"downloading into {out}/"):
                got = cli_images.fetch(job, out, follow=False)
            with phase("verify", f"rendering {VERIFIED} of them again and comparing the bytes"):
                report = job.verify(sample=VERIFIED, progress=lambda _: farm.check())
            print(f"   {report.statuses}")
            described = _described(out)
            contact_sheet.write(_sample(out, described), out / "contact-sheet.png")
            summary = _summary(job, described, phase) | {
                "downloaded": got.present,
                "bytes": got.bytes,
                "verified": dict(report.statuses),
            }
        with phase("stop", "stopping the farm"):
            farm.stop()
    finally:
        farm.stop()
        shutil.rmtree(folder, ignore_errors=True)
    summary["seconds"] = phase.seconds
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    return summary


def _tell(line: str) -> None:
    print(f"   {line}", file=sys.stderr, flush=True)


def _described(out: Path) -> list[dict[str, Any]]:
    with (out / "metadata.jsonl").open() as file:
        return [json.loads(line) for line in file]


def _sample(out: Path, described: list[dict[str, Any]]) -> list[tuple[bytes | Path, str]]:
    """Pictures from everywhere in the job, in its order; always the same ones."""
    chosen = random.Random(1).sample(range(len(described)), min(SHEET, len(described)))
    return [(out / described[i]["file_name"], described[i]["text"]) for i in sorted(chosen)]


def _summary(job: Job, described: list[dict[str, Any]], phase: Phases) -> dict[str, Any]:
    started, finished = job.data["started_at"], job.data["finished_at"]
    rendering = finished - started if started and finished else phase.seconds["render"]
    return {
        "job": job.id,
        "model": job.data["model"],
        "fingerprints": sorted({line["fingerprint"] for line in described}),
        "images": job.counts.total,
        "done": job.counts.done,
        "failed": job.counts.failed,
        "images_per_second": round(job.counts.done / max(rendering, 1e-3), 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("demo-out"))
    parser.add_argument("--model", help="default: emoji-gan")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--prompts", type=Path, default=PROMPTS)
    given = parser.parse_args()
    started = time.monotonic()
    try:
        summary = demo(given.out, model=given.model, workers=given.workers, prompts=given.prompts)
    except (errors.Error, OSError) as exc:
        print(f"promptmill: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    sound = summary["verified"].get("ok", 0) == sum(summary["verified"].values())
    print(
        f"\n{summary['done']:,} of {summary['images']:,} images in {given.out}/ after "
        f"{time.monotonic() - started:.0f} s, {summary['images_per_second']:,} a second\n"
        f"  {given.out}/contact-sheet.png   what they look like\n"
        f"  {given.out}/images/             one PNG per image\n"
        f"  {given.out}/metadata.jsonl      prompt, seed, sha256 of each\n"
        f"  {given.out}/summary.json        counts, rates, fingerprint"
    )
    return 0 if summary["done"] == summary["images"] and sound else 1


if __name__ == "__main__":
    sys.exit(main())
