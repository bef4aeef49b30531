"""What the README says is checked against the code."""

from __future__ import annotations

import dataclasses
import importlib
import re
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest

from api.app import create_app
from api.openai import shapes
from api.submissions import described, head
from api.submissions import document as documents
from promptmill import jobs, settings
from tests.unit.client_stub import serving

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_every_setting_is_in_the_readme_and_no_other() -> None:
    table = README.partition("## Settings")[2].partition("## Develop")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([A-Z0-9_]+)`", row)}
    assert named == {f.name.upper() for f in dataclasses.fields(settings.Settings)}


def test_every_link_of_the_documents_leads_somewhere() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    for document in pages:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_python_of_the_readme_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [snippet] = re.findall(r"```python\n(.*?)```", README, re.S)
    with serving() as farm:
        monkeypatch.setenv("PROMPTMILL_URL", farm.url)
        exec(compile(snippet, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "images" in printed
    assert "red heart" in printed


def test_every_make_target_of_the_documents_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    training = (ROOT / "docs" / "training.md").read_text()
    named = re.findall(r"make ([a-z]+)", README) + re.findall(r"`make ([a-z-]+)`", training)
    assert "train-tiny" in named
    for target in set(named):
        assert re.search(rf"^{target}:", makefile, re.M), target


@pytest.mark.parametrize("page", ["models/emoji-gan.md", "training.md"])
def test_every_option_of_a_command_of_the_model_exists(
    page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "docs" / page).read_text()
    lines = re.findall(r"python -m ((?:worker|benchmarks|examples)[\w.]*)([^`\n]*)", text)
    assert len(lines) > 10
    for name, given in lines:
        main = importlib.import_module(name if "." in name else f"{name}.__main__").main
        with pytest.raises(SystemExit) as ended:
            main(["--help"])
        known, asked = capsys.readouterr().out, re.findall(r"--[a-z-]+", given)
        assert ended.value.code == 0 and [one for one in asked if one not in known] == [], name


def test_every_parameter_of_a_submission_stands_in_its_document_and_in_openapi() -> None:
    text = (ROOT / "docs" / "submissions.md").read_text()
    assert described.PARAMETERS.keys() == head.KNOWN
    assert tuple(described.SOURCES) == documents.SOURCES
    assert tuple(described.TEMPLATE) == documents.TEMPLATE
    told = described.PARAMETERS | described.SOURCES | described.TEMPLATE
    for name, (_, line) in told.items():
        assert re.search(rf"^\| `{name}` \| .* \| {re.escape(line)} \|$", text, re.M), name
    taken = create_app(settings.Settings()).openapi()["paths"]["/v1/jobs"]["post"]
    body = taken["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert body.keys() == told.keys() | {"defaults", "output"}


def test_every_state_stands_in_the_document_of_states() -> None:
    text = (ROOT / "docs" / "states.md").read_text()
    for state in (*jobs.JobState, *jobs.ImageState):
        assert state in text


def test_every_event_of_a_job_stands_in_the_document_of_the_client() -> None:
    text = (ROOT / "docs" / "sdk.md").read_text()
    told = set().union(*jobs.LEGAL.values()) - {jobs.JobState.FAILED}
    assert set(re.findall(r"`job\.([a-z]+)`", text)) == told


def test_every_value_that_asks_for_nothing_stands_in_the_document_of_openai() -> None:
    """Others are refused: who reads the document knows which."""
    text = (ROOT / "docs" / "openai.md").read_text()
    for name in ("quality", "background", "moderation", "output_compression", "input_fidelity"):
        kind, _ = get_args(shapes.EditRequest.model_fields[name].annotation)
        assert get_origin(kind) is Literal
        [told] = re.findall(rf"`{name}`([^,;]*)", text)
        assert re.findall(r"\w+", told.replace("may be", "").replace("or", "")) == [
            str(value) for value in get_args(kind)
        ]
