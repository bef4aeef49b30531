"""Which checkpoints are taken, which are refused and why, and pulling from a hub: a local
server that speaks the hub's protocol."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from promptmill import errors, models
from worker.generators import (
    checkpoint,
    diffusers_loading,
    hub,
    offers,
    options,
    quantization,
    registry,
)
from worker.generators.quantization import Device, Model

COMMIT = "c" * 40


def tensors(**shapes: list[int]) -> bytes:
    """A safetensors file of zeros."""
    head, at = {}, 0
    for name, shape in shapes.items():
        size = 4
        for side in shape:
            size *= side
        head[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + bytes(at)


def folder(place: Path, **files: str | bytes) -> Path:
    for name, content in files.items():
        path = place / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return place


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("emoji-gan", "emoji-gan"),
        ("hf:org/some.model-v1", "org/some.model-v1"),
        ("hf:org/name@abc123", "org/name"),
        ("./a/folder", "folder"),
        ("/srv/check_points/sd-v1.5", "sd-v1.5"),
    ],
)
def test_the_name_of_a_model(model: str, name: str) -> None:
    assert models.served_name(model) == name


@pytest.mark.parametrize("model", ["hf:", "hf:name", "hf:a/b/c", "hf:a/{b}", "/", "./a b", ""])
def test_what_cannot_be_a_name_is_refused(model: str) -> None:
    with pytest.raises(errors.SettingInvalid):
        models.served_name(model)


def test_a_folder_is_known_by_its_files(tmp_path: Path) -> None:
    weights = tensors(a=[2, 3], b=[4])
    made = folder(tmp_path / "m", config_dot_json="{}", model_dot_safetensors=weights)
    found = checkpoint.find(str(made))
    assert (found.name, found.kind, found.revision) == ("m", "transformers", "")
    assert found.parameters() == 10
    assert checkpoint.linear_share(made) == 0.6
    before = found.digest()
    (made / "README.md").write_text("no part of it")
    assert found.digest() == before
    (made / "config.json").write_text('{"a": 1}')
    assert found.digest() != before
    folder(made, model_index_dot_json="{}")
    assert checkpoint.find(str(made)).kind == "diffusers"


def test_parts_behind_links_to_folders_count(tmp_path: Path) -> None:
    weights = {"a_dot_safetensors": tensors(a=[2, 3]), "q_dot_gguf": b"GGUF"}
    plain = folder(tmp_path / "m", model_index_dot_json="{}")
    folder(plain / "unet", **weights)
    linked = folder(tmp_path / "l", model_index_dot_json="{}")
    (linked / "unet").symlink_to(folder(tmp_path / "elsewhere" / "u", **weights))
    found = checkpoint.find(str(linked))
    assert found.parameters("unet") == found.parameters() == 6
    assert found.digest() == checkpoint.find(str(plain)).digest()
    assert diffusers_loading.gguf(found) == linked / "unet" / "q.gguf"
    (linked / "vae").symlink_to(tmp_path / "elsewhere" / "u")
    assert found.parameters() == 12
    before = found.files()
    (linked / "self").symlink_to(linked)
    (linked / "above").symlink_to(tmp_path)
    (tmp_path / "elsewhere" / "u" / "back").symlink_to(linked)
    assert found.files() == before


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, "is no checkpoint"),
        ({"config_dot_json": "{}"}, "no .safetensors"),
        ({"config_dot_json": "{}", "pytorch_model_dot_bin": b"x"}, "can run code"),
        ({"flux_dot_gguf": b"GGUF"}, "beside its model_index.json.*QUANTIZATION=gguf"),
        ({"model_index_dot_json": "{}", "flux_dot_gguf": b"GGUF"}, "and no .safetensors"),
        ({"config_dot_json": '{"auto_map": {"AutoModel": "x.Y"}}'}, "auto_map"),
        (
            {
                "config_dot_json": "{}",
                "tokenizer_config_dot_json": '{"auto_map": {"AutoTokenizer": ["x.Y", null]}}',
            },
            "tokenizer_config.json asks for code",
        ),
        (
            {
                "model_index_dot_json": "{}",
                "image_encoder__preprocessor_config_dot_json": '{"a": [{"auto_map": {"b": "c.D"}}]}',
            },
            "preprocessor_config.json asks for code",
        ),
        ({"model_index_dot_json": "[]"}, "is damaged.*holds no object"),
        (
            {"model_index_dot_json": '{"vae": ["diffusers", "AutoencoderKL"]}'},
            "m is incomplete, fetch it again: it lacks vae/",
        ),
        (
            {
                "model_index_dot_json": '{"unet": ["diffusers", "UNet2DConditionModel"]}',
                "unet__model_dot_bin": b"x",
            },
            "unet has model.bin and no .safetensors file",
        ),
        ({"config_dot_json": "{"}, "is damaged"),
        (
            {
                "model_index_dot_json": '{"unet": ["my_unet", "Unet"]}',
                "unet__my_unet_dot_py": "import os",
            },
            "my_unet.py",
        ),
        (
            {
                "model_index_dot_json": '{"_class_name": ["pipeline", "Own"]}',
                "pipeline_dot_py": "import os",
            },
            "pipeline.py",
        ),
    ],
)
def test_what_is_refused_and_why(tmp_path: Path, files: dict[str, str], told: str) -> None:
    with pytest.raises(errors.ModelInvalid, match=told) as raised:
        checkpoint.find(str(folder(tmp_path / "m", **{"x_dot_txt": "", **files})))
    assert raised.value.refuses


def test_a_model_that_makes_no_pictures_is_refused_by_its_configuration(tmp_path: Path) -> None:
    given = {"config_dot_json": '{"model_type": "llama"}', "model_dot_safetensors": b"\xff" * 20}
    with pytest.raises(errors.ModelInvalid, match=r"is a llama: .* janus, emu3"):
        registry.create(str(folder(tmp_path / "m", **given)))
    given["config_dot_json"] = '{"model_type": "janus"}'
    options = tmp_path / "options.json"
    options.write_text('{"steps": [1, 2, 3]}')
    with pytest.raises(errors.SettingInvalid, match="steps are of pipelines of diffusers"):
        registry.create(str(folder(tmp_path / "j", **given)), str(options))


def test_other_files_of_json_may_hold_anything(tmp_path: Path) -> None:
    files = {"tokenizer_config_dot_json": '{"vocabulary_map": {"auto_map": 7}}'}
    files |= {"vocab_dot_json": '["auto_map"]', "samples_dot_json": '{"auto_map": 1}'}
    made = folder(tmp_path / "m", config_dot_json="{}", model_dot_safetensors=b"\xff" * 20, **files)
    assert checkpoint.find(str(made)).kind == checkpoint.TRANSFORMERS


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    made = folder(tmp_path / "m", config_dot_json="{}", model_dot_safetensors=b"\xff" * 20)
    with pytest.raises(errors.Error, match=r"model\.safetensors is damaged"):
        checkpoint.find(str(made)).parameters()
    whole = tensors(a=[4])
    for damaged in (whole[:-1], whole + b"0"):
        (made / "model.safetensors").write_bytes(damaged)
        with pytest.raises(errors.ModelInvalid, match=r"model\.safetensors is damaged.*head says"):
            checkpoint.find(str(made)).parameters()
    (made / "model.safetensors").write_bytes(whole)
    assert checkpoint.find(str(made)).parameters() == 4
    with pytest.raises(errors.ModelNotFound, match="no such folder"):
        checkpoint.find(str(tmp_path / "absent"))


def test_one_variant_of_the_weights_and_no_copies_at_the_top() -> None:
    files = [
        *("model_index.json", "README.md", "whole.safetensors", "unet/config.json"),
        *("unet/a.safetensors", "unet/a.fp16.safetensors", "unet/a.bin", "vae/a.fp16.safetensors"),
        *("tokenizer/merges.txt", "code.py"),
    ]
    assert sorted(hub.wanted_of(files)) == [
        *("model_index.json", "tokenizer/merges.txt", "unet/a.safetensors", "unet/config.json"),
        "vae/a.fp16.safetensors",
    ]
    parts = ["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert hub.wanted_of(parts) == parts


@pytest.mark.parametrize(
    ("names", "variant"),
    [
        (["a"], ""),
        (["a", "a.fp16"], ""),
        (["a.fp16"], "fp16"),
        (["a.fp16-00001-of-00002", "a.fp16-00002-of-00002"], "fp16"),
        (["a-00001-of-00002", "a-00002-of-00002"], ""),
    ],
)
def test_a_variant_is_asked_for_where_nothing_else_is_here(
    tmp_path: Path, names: list[str], variant: str
) -> None:
    for name in names:
        (tmp_path / f"{name}.safetensors").touch()
    assert diffusers_loading._variant(tmp_path) == variant


GPU, ADA, OLD = Device("cuda", (9, 0)), Device("cuda", (8, 9)), Device("cuda", (7, 0))
AMPERE = Device("cuda", (8, 6))
CPU, DIT = Device("cpu"), Model("diffusers", 1.0)
AVX2 = Device("cpu", bf16=False)


@pytest.mark.parametrize(
    ("name", "device", "model", "reason"),
    [
        ("fp8", CPU, DIT, "no 8-bit floats"),
        ("fp8", AMPERE, DIT, "8.9 has.: use bf16, or nf4"),
        ("int8", GPU, DIT, "other bytes .*NVIDIA H200.*: use fp8"),
        ("int8", ADA, DIT, "use fp8"),
        ("int8", AMPERE, DIT, "use bf16, or nf4"),
        ("int8", OLD, DIT, "use none, or nf4"),
        ("int8", GPU, Model("transformers"), "token by token.*use bf16, or nf4"),
        ("bf16", OLD, DIT, "in software"),
        ("nf4", CPU, DIT, "needs a GPU"),
        ("int8", GPU, Model("diffusers", 0.35), "35%"),
        ("gguf", GPU, DIT, "no .gguf"),
        ("gguf", GPU, Model("transformers"), "transformers reads no GGUF"),
        ("int4", GPU, DIT, "one of none, bf16"),
    ],
)
def test_a_format_that_helps_nobody_is_refused(
    name: str, device: Device, model: Model, reason: str
) -> None:
    with pytest.raises(errors.UnsupportedParameter, match=reason):
        quantization.plan(name, device, model)


def test_what_the_setting_comes_to() -> None:
    assert quantization.plan("auto", GPU, DIT).dtype == "bfloat16"
    assert quantization.plan("auto", CPU, DIT).name == "none"
    assert quantization.plan("auto", OLD, DIT).name == "none"
    assert quantization.plan("fp8", ADA, DIT).compiled
    assert not quantization.plan("int8", CPU, DIT).compiled
    assert quantization.plan("nf4", CPU, Model("transformers")).backend == "bitsandbytes"
    assert quantization.possible(CPU, DIT) == ("none", "bf16", "int8")
    assert quantization.possible(CPU, Model("diffusers", gguf=True))[-1] == "gguf"
    words = quantization.possible(CPU, Model("transformers"))
    assert words == ("none", "bf16", "int8", "nf4")
    assert quantization.possible(ADA, DIT) == ("none", "bf16", "fp8", "nf4")
    assert quantization.possible(AMPERE, DIT) == ("none", "bf16", "nf4")


def test_what_is_held_smaller_is_computed_in_numbers_that_the_processor_has() -> None:
    assert quantization.plan("int8", CPU, DIT).dtype == "bfloat16"
    assert quantization.plan("int8", CPU, DIT).format == "int8"
    for name, model in (("int8", DIT), ("nf4", Model("transformers"))):
        found = quantization.plan(name, AVX2, model)
        assert (found.dtype, found.format) == ("float32", f"{name} in float32")
        assert found.bytes == quantization.plan(name, CPU, model).bytes
    asked = quantization.plan("bf16", AVX2, DIT)
    assert (asked.dtype, asked.format) == ("bfloat16", "bf16")
    assert quantization.plan("none", AVX2, DIT) == quantization.plan("none", CPU, DIT)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[]", "JSON object"),
        ('{"size": []}', "unknown field 'size'"),
        ('{"sizes": ["64"]}', "512x512"),
        ('{"steps": [4, 1, 8]}', "steps must be"),
        ('{"steps": [1, 4]}', "least, usual, most"),
        ('{"steps": [0, 0, 4]}', "steps must begin at 1"),
        ('{"guidance": [0, 1, 1e999]}', "guidance must be"),
        ('{"sizes": 5}', "sizes must be"),
        ('{"loras": {"v1.5": "x"}}', "letters, digits, _ and -"),
        ('{"batch_shapes": [0, 1]}', "batch_shapes must be"),
        ('{"loras": {"a/b": "x"}}', "loras must be"),
        ('{"prompt_tokens": 4}', "16 to 4096"),
    ],
)
def test_options_that_are_wrong_are_named(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "options.json"
    path.write_text(text)
    with pytest.raises(errors.SettingInvalid, match=told):
        options.read(str(path))


def test_sizes_keep_the_area_that_the_checkpoint_was_made_for() -> None:
    found = offers.sizes(1024, 16)
    assert found[0] == (1024, 1024)
    assert (512, 512) in found
    assert all(width % 64 == height % 64 == 0 for width, height in found)
    assert all(0.9 < w * h / 1024**2 < 1.1 for w, h in found[:-1])


class Hub(BaseHTTPRequestHandler):
    """What `pull` asks of the hub, for ORG/tiny; ORG/gated and others are refused."""

    files: ClassVar[dict[str, bytes]] = {
        "config.json": b'{"model_type": "vit"}',
        "model.safetensors": tensors(a=[2, 2]),
        "pytorch_model.bin": b"never fetched",
        "run.py": b"never fetched",
    }
    asked: ClassVar[list[str]] = []
    size: ClassVar[int | None] = None

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if "/gated" in self.path:
            return self._send(403, b"{}", {"X-Error-Code": "GatedRepo"})
        if not self.path.startswith(("/api/models/org/tiny", "/org/tiny/")):
            return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        if self.path.startswith("/api/models/org/tiny/tree/"):
            tree = [{"type": "file", "path": name, "size": len(data), "oid": "0" * 40}
                    for name, data in self.files.items()]  # fmt: skip
            return self._send(200, json.dumps(tree).encode(), {})
        if self.path.startswith("/api/"):
            siblings = [
                {"rfilename": name, "size": self.size or len(data)}
                for name, data in self.files.items()
            ]
            told = {"id": "org/tiny", "sha": COMMIT, "siblings": siblings, "private": False,
                    "tags": [], "downloads": 0, "likes": 0}  # fmt: skip
            return self._send(200, json.dumps(told).encode(), {})
        data = self.files[self.path.partition(f"/resolve/{COMMIT}/")[2]]
        etag = hashlib.sha256(data).hexdigest()
        return self._send(200, data, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def endpoint() -> Iterator[str]:
    Hub.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def in_process(endpoint: str, home: Path, code: str, **more: str) -> str:
    """A fresh process, since the library reads its environment once; its output."""
    online = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}  # another test's
    env = {**online, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), **more}
    env |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=100,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


PULL = """
from promptmill import errors
from worker.generators import checkpoint, hub
for model in {models}:
    try:
        print(hub.pull(model))
    except errors.Error as error:
        print(type(error).__name__, error)
"""


def test_pull_fetches_what_is_read_and_serving_asks_nothing(endpoint: str, tmp_path: Path) -> None:
    wanted = ["hf:org/tiny", "hf:org/gated", "hf:org/absent"]
    out = in_process(endpoint, tmp_path, PULL.format(models=wanted)).splitlines()
    assert Path(out[0]).name == COMMIT
    assert {path.name for path in Path(out[0]).iterdir()} == {"config.json", "model.safetensors"}
    assert out[1].startswith("Forbidden hf:org/gated is gated")
    assert out[2].startswith("ModelNotFound the hub has no hf:org/absent")
    Hub.asked.clear()
    code = (
        "from worker.generators import checkpoint, hub; hub.go_offline()\n"
        "found = checkpoint.find('hf:org/tiny'); print(found.revision, len(found.digest()))\n"
        f"print(checkpoint.find('hf:org/tiny@{COMMIT}').revision)\n"
        "try: checkpoint.find('hf:org/other')\n"
        "except Exception as error: print(error)"
    )
    served = in_process(endpoint, tmp_path, code, HF_HUB_OFFLINE="1").splitlines()
    assert served[:2] == [f"{COMMIT} 64", COMMIT]
    assert "promptmill models pull hf:org/other" in served[2]
    assert Hub.asked == []


def test_a_name_that_the_hub_refuses_and_a_hub_out_of_reach_are_told(tmp_path: Path) -> None:
    names = ["hf:a--b/c", "hf:org/n..ame", "hf:org/name.git", "hf:org/tiny"]
    out = in_process("http://127.0.0.1:9", tmp_path, PULL.format(models=names)).splitlines()
    for name, line in zip(names[:3], out, strict=False):
        assert line.startswith(f"SettingInvalid {name} cannot be a name on the hub")
    assert out[3].startswith("Unavailable hf:org/tiny cannot be pulled: ")


def test_an_adapter_is_pulled_as_what_it_is(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hub, "files", {"ink.safetensors": b"weights", "README.md": b""})
    code = (
        "from worker import probe\n"
        "print(probe.pull('hf:org/tiny', device='cpu', quantization='auto'))"
    )
    assert in_process(endpoint, tmp_path, code) == f"commit {COMMIT}, the adapter ink.safetensors\n"


def test_a_checkpoint_larger_than_the_disk_is_refused_before_it_is_fetched(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hub, "size", 10**15)
    out = in_process(endpoint, tmp_path, PULL.format(models=["hf:org/tiny"]))
    assert out.startswith("TooLarge hf:org/tiny takes 2000000.0 GB")
    assert not any("/resolve/" in path for path in Hub.asked)
