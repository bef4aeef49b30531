"""The example files are what the README says of them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from PIL import Image, ImageFont

from promptmill import contact_sheet

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_prompts_are_many_distinct_and_varied() -> None:
    rows = [json.loads(line) for line in (EXAMPLES / "prompts.jsonl").read_text().splitlines()]
    assert len(rows) >= 1100
    assert len({row["prompt"].lower() for row in rows}) == len(rows)
    assert len({row["id"] for row in rows}) == len(rows)
    assert len({row["category"] for row in rows}) >= 25
    assert {row["wording"] for row in rows} == {"name", "description", "sentence", "synonym"}
    for field in ("seed", "n", "style", "note"):
        assert sum(field in row for row in rows) >= 20, field


def test_the_table_and_the_template_parse() -> None:
    with (EXAMPLES / "own.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(row["caption"] and row["seed"].isdigit() for row in rows)
    document = json.loads((EXAMPLES / "templates.json").read_text())
    for name in document["variables"]:
        assert "{{" + name + "}}" in document["template"]


def test_a_contact_sheet_holds_every_picture_and_its_caption(tmp_path: Path) -> None:
    tiles = []
    for number in range(5):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (64, 64), (50 * number, 0, 0)).save(path)
        tiles.append((path if number % 2 else path.read_bytes(), "a word " * 9 * number))
    out = tmp_path / "sheet.png"
    contact_sheet.write(tiles, out, columns=3)
    with Image.open(out) as sheet:
        colours = {colour for _, colour in sheet.convert("RGB").getcolors(1 << 20) or []}
        wide, high = sheet.size
    assert {(50 * number, 0, 0) for number in range(5)} <= colours
    assert wide == 2 * contact_sheet.MARGIN + 3 * (contact_sheet.TILE + contact_sheet.GAP)
    assert high > 2 * (contact_sheet.TILE + contact_sheet.LINE_HEIGHT)
    assert not list(tmp_path.glob(".*"))


def test_a_caption_is_written_in_characters_that_the_font_has() -> None:
    has = contact_sheet.glyphs(ImageFont.load_default(contact_sheet.FONT_SIZE))
    assert contact_sheet.drawable("a “red” heart…", has) == "a “red” heart…"
    assert contact_sheet.drawable("Überraschung №1 — 漢字 🙂!", has).split() == [
        *("Uberraschung", "No1", "-", "!"),
    ]
