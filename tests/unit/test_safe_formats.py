"""Bytes from elsewhere are never run as code: nothing in the tree unpickles, evaluates, or
lets a model bring its own Python. Read from the syntax of every module, so that a new one is
held to the same."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from promptmill import wakeups
from promptmill.settings import Settings

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for part in ("promptmill", "api", "worker", "examples")
    for path in (ROOT / part).rglob("*.py")
)
MODULES = {
    "pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal",
    "jsonpickle", "torch.package", "xml.etree", "xml.dom", "xml.sax.expatreader", "telnetlib",
}  # fmt: skip
BUILTINS = {"eval", "exec", "compile", "__import__"}
LOADS = {"load", "loads"}  # of modules whose format may hold code
WITHOUT_WEIGHTS = ("tokenizer", "config", "processor")
NO_CODE = {"use_safetensors", "gguf_file"}  # formats of weights that hold none
RUNS = {"yaml", "torch", "np", "numpy"}


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def dictionaries(tree: ast.AST) -> dict[str, dict[str | None, ast.expr]]:
    """The entries of dictionaries by the name they are bound to: what `**name` may pass on."""
    found: dict[str, dict[str | None, ast.expr]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                entries = zip(node.value.keys, node.value.values, strict=True)
                held = {k.value: v for k, v in entries if isinstance(k, ast.Constant)}
                found.setdefault(dotted(target), {}).update(held)
    return found


def faults(tree: ast.AST) -> Iterator[str]:
    passed_on = dictionaries(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module or ""]
        else:
            names = []
        for name in names:
            if any(name == module or name.startswith(f"{module}.") for module in MODULES):
                yield f"{node.lineno}: imports {name}"
        if isinstance(node, ast.Call):
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            if None in given:
                given |= passed_on.get(dotted(given.pop(None)), {})
            yield from calls(node, given)


def calls(node: ast.Call, given: Mapping[str | None, ast.expr]) -> Iterator[str]:
    called = dotted(node.func)
    module, _, name = called.rpartition(".")
    if called in BUILTINS:
        yield f"{node.lineno}: calls {called}"
    if module in RUNS and name in LOADS:
        safe = given.get("weights_only") if module == "torch" else None
        if not (isinstance(safe, ast.Constant) and safe.value is True):
            yield f"{node.lineno}: {called} may run what it reads"
    trusted = given.get("trust_remote_code")
    loads = name == "from_pretrained" or (name == "from_config" and "Auto" in module)
    if (loads or trusted) and not (isinstance(trusted, ast.Constant) and trusted.value is False):
        yield f"{node.lineno}: {called} may run code of the checkpoint"
    if "allow_pickle" in given or ("shell" in given and module in ("subprocess", "")):
        yield f"{node.lineno}: allow_pickle or shell"
    kept_inside = isinstance(kept := given.get("filter"), ast.Constant) and kept.value == "data"
    if name in ("extractall", "unpack_archive") and not kept_inside:
        yield f"{node.lineno}: unpacks names that an archive chose"
    if name == "from_pretrained" and not given.keys() & {"local_files_only", "revision"}:
        yield f"{node.lineno}: from_pretrained neither local nor of a pinned revision"
    weights = not any(part in module.lower() for part in WITHOUT_WEIGHTS)
    if name == "from_pretrained" and weights and not given.keys() & NO_CODE:
        yield f"{node.lineno}: from_pretrained of weights that need not be safetensors"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_runs_nothing_that_it_reads(path: Path) -> None:
    assert list(faults(ast.parse(path.read_text()))) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from pickle import loads", "import joblib", "eval(x)", "exec(x)",
        "torch.load(f)", "torch.load(f, weights_only=False)", "torch.load(f, weights_only=flag)",
        "yaml.load(f)", "np.load(f, allow_pickle=True)", "AutoModel.from_pretrained('a/b', use_safetensors=True)",
        "AutoModel.from_pretrained('a', local_files_only=True)", "AutoModel.from_pretrained('a', **options)",
        "AutoModel.from_pretrained('a', revision='1', trust_remote_code=True)",
        "AutoTokenizer.from_pretrained('a', local_files_only=True)",
        "AutoTokenizer.from_pretrained('a', local_files_only=True, trust_remote_code=flag)",
        "AutoTokenizer.from_pretrained('a', local_files_only=True, trust_remote_code=None)",
        "AutoModel.from_config(config)",
        "subprocess.run(x, shell=True)", "tarfile.open(x).extractall(y)",
        "from torch.package import PackageImporter",
    ],
)  # fmt: skip
def test_the_rule_sees(code: str) -> None:
    assert list(faults(ast.parse(code)))


def test_messages_between_processes_are_json() -> None:
    app = wakeups.celery_app(Settings())
    assert set(app.conf.accept_content) == {"json"}
    for name in ("task_serializer", "result_serializer", "event_serializer"):
        assert app.conf[name] == "json"
    assert app.conf.result_accept_content in (None, ["json"])
