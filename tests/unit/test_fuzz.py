"""Every parser of bytes or text from outside, fed with what nobody would send: it answers or
refuses with an error of the tree, and never fails in another way."""

from __future__ import annotations

import contextlib
import gzip
import io
import string
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from starlette.requests import Request

from api import contents, forms
from api.routes import images as image_routes
from api.routes import webhooks
from api.submissions import Limits
from promptmill import addresses, blobs, errors, failpoints, jobs, manifest, pictures
from promptmill import settings as farm_settings
from promptmill.blobs import fake
from tests.unit.submissions_kit import document, drafts, opened

bounded = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
LIMITS = Limits(max_rows=50, max_images=200, max_body_bytes=20_000, max_line_bytes=5_000)
NAMES = ("prompt", "seed", "n", "size", "steps", "guidance", "task", "id", "negative_prompt")
SYNTAX = st.text(
    st.sampled_from("{}[]\":,\\|$%~@#-_!?()<>0123456789abeEun\n\r\t \0é𝄞'=;."), max_size=60
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*NAMES, "x"]) | st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
JSON = VALUES.map(lambda value: orjson.dumps(value, default=str) if _fits(value) else b"0")


def _fits(value: Any) -> bool:
    try:
        orjson.dumps(value)
    except TypeError:  # an integer past 64 bits, or a lone surrogate
        return False
    return True


@pytest.mark.parametrize(
    "kind",
    [
        "application/x-ndjson", "text/csv", "text/plain", "application/json",
        "application/vnd.apache.parquet",
    ],
)  # fmt: skip
@bounded
@given(
    body=st.binary(max_size=200)
    | SYNTAX.map(lambda text: text.encode())
    | JSON
    | SYNTAX.map(lambda text: b"prompt,seed\n" + text.encode()),
    chunk=st.integers(1, 50),
    packed=st.booleans(),
    cut=st.integers(0, 12),
)
def test_bodies(kind: str, body: bytes, chunk: int, packed: bool, cut: int) -> None:
    if packed:
        body = gzip.compress(body, 1)
        body = body[: len(body) - cut] if cut < 10 else body
    try:
        drafts(opened(body, kind, limits=LIMITS, chunk=chunk))
    except errors.Error as refused:
        assert 400 <= refused.status < 500


@bounded
@given(fields=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4))
def test_rows(fields: dict[str, Any]) -> None:
    row = {"prompt": "a", **fields}
    if _fits(row):
        try:
            drafts(opened(orjson.dumps(row), limits=LIMITS))
        except errors.Error as refused:
            assert 400 <= refused.status < 500


@bounded
@given(template=SYNTAX, variables=VALUES, wildcards=VALUES, count=VALUES)
def test_templates(template: str, variables: Any, wildcards: Any, count: Any) -> None:
    fields = {"template": template, "variables": variables, "wildcards": wildcards, "count": count}
    if _fits(fields):
        try:
            submission = document(**{k: v for k, v in fields.items() if v is not None})
            for _ in zip(range(50), submission.rows, strict=False):
                pass
        except errors.Error as refused:
            assert 400 <= refused.status < 500


@bounded
@given(name=st.sampled_from(["prefix", "webhook", "metadata", "map", "window", "expires_at", "seed",
                             "size", "n", "priority", "name", "format", "dry_run"]),
       value=SYNTAX | st.text(max_size=30))  # fmt: skip
def test_queries(name: str, value: str) -> None:
    try:
        head = opened(b'{"prompt":"a"}', query=[(name, value)]).head
    except errors.Error as refused:
        assert 400 <= refused.status < 500
        return
    if head.job.output.prefix:
        blobs.check_key(f"{head.job.output.prefix}/jobs/x")
    assert not set(head.job.webhook or "") & set("\r\n\t \0")


TABLE = io.BytesIO()
pq.write_table(pa.table({"prompt": [f"p{i}" for i in range(40)], "seed": list(range(40))}), TABLE)


@bounded
@given(at=st.integers(0, len(TABLE.getvalue()) - 1), byte=st.integers(0, 255), keep=st.booleans())
def test_damaged_parquet(at: int, byte: int, keep: bool) -> None:
    data = bytearray(TABLE.getvalue())
    data[at] = byte
    body = bytes(data) if keep else bytes(data[:at])
    try:
        drafts(opened(body, "application/vnd.apache.parquet", limits=LIMITS))
    except errors.Error as refused:
        assert 400 <= refused.status < 500


@bounded
@given(
    asked=SYNTAX | st.from_regex(r"bytes=[0-9]{0,25}-[0-9]{0,25}", fullmatch=True),
    size=st.integers(1, 50),
)
def test_ranges(asked: str, size: int) -> None:
    store = fake.MemoryBlobs()
    store.create("k", bytes(size), content_type="x/y", metadata={})
    raw = asked.encode("latin-1", "replace")
    request = Request({"type": "http", "method": "GET", "headers": [(b"range", raw)]})
    answer = contents.answer(store, contents.Content("k", 0, size, "0" * 64, "x/y", "f"), request)
    assert answer.status_code in (200, 206, 416)
    assert len(answer.body) <= size or answer.status_code == 416


@bounded
@given(text=SYNTAX | st.text(max_size=20) | st.integers().map(lambda n: f"img_a_{n}")
       | st.integers(1, 6000).map(lambda n: "img_a_" + "9" * n) | st.integers(1, 6000).map(lambda n: "9" * n))  # fmt: skip
def test_cursors_and_ids(text: str) -> None:
    for read in (
        lambda: image_routes._after("job_a", text),
        lambda: jobs.parse_image_id(text),
        lambda: webhooks._number(text, "after"),
        lambda: blobs.check_key(text),
    ):
        try:
            read()
        except errors.Error as refused:
            assert 400 <= refused.status < 500


@bounded
@given(text=SYNTAX | st.text(string.printable, max_size=30))
def test_settings_and_failpoints(text: str) -> None:
    for name in ("PORT", "SLOTS", "LEASE_SECONDS", "RETENTION_DAYS", "DATABASE_URL", "REDIS_URL",
                 "STORAGE_URL", "AUTH", "MAX_ROWS", "SOURCE_PREFIXES"):  # fmt: skip
        try:
            farm_settings.read({f"PROMPTMILL_{name}": text})
        except errors.SettingInvalid as refused:
            assert "PROMPTMILL_" in refused.message
    try:
        failpoints.arm(text)
    except errors.SettingInvalid:
        pass
    finally:
        failpoints.arm("")


@bounded
@given(host=SYNTAX | st.text(max_size=20))
def test_hosts(host: str) -> None:
    assert addresses.surely_inside(host) in (True, False)


CARRYING = ("::", "::ffff:", "::ffff:0:", "64:ff9b::", "64:ff9b:1::")  # before an IPv4 address


@bounded
@given(
    ip=st.sampled_from(("127.0.0.0/8", "10.0.0.0/8", "169.254.0.0/16", "192.168.0.0/16")).flatmap(
        lambda network: st.ip_addresses(network=network)
    ),
    before=st.sampled_from(CARRYING),
)
def test_no_form_of_an_address_inside_is_public(ip: IPv4Address, before: str) -> None:
    halves = f"{int(ip) >> 16:x}:{int(ip) & 0xFFFF:x}"
    for form in (str(ip), str(int(ip)), hex(int(ip)), f"{before}{halves}", f"2002:{halves}::"):
        assert addresses.surely_inside(form)


@bounded
@given(ip=st.ip_addresses(v=6).filter(lambda ip: int(ip) >> 125 != 1))
def test_only_global_unicast_is_public(ip: IPv6Address) -> None:
    carried = ip.ipv4_mapped
    assert not addresses.is_public(str(ip)) or (carried and addresses.is_public(str(carried)))


@bounded
@given(
    boundary=st.just("x" * 300) | st.text(st.characters(max_codepoint=255), max_size=400),
    body=st.binary(max_size=200),
)
def test_forms(boundary: str, body: bytes) -> None:
    with contextlib.suppress(errors.Error):
        kind = f"multipart/form-data; boundary={boundary}"
        form = forms.Form([body], kind, file="file", on_field=lambda name, value: None)
        list(form.pieces())


PNG = io.BytesIO()
Image.new("RGB", (4, 4)).save(PNG, "PNG")


@bounded
@given(at=st.integers(0, len(PNG.getvalue()) - 1), byte=st.integers(0, 255), keep=st.booleans())
def test_damaged_pictures(at: int, byte: int, keep: bool) -> None:
    data = bytearray(PNG.getvalue())
    data[at] = byte
    try:
        pictures.check(bytes(data) if keep else bytes(data[:at]))
    except errors.Error as refused:
        assert refused.status == 400


@bounded
@given(text=SYNTAX | st.text(max_size=60))
def test_public_keys(text: str) -> None:
    try:
        manifest.public_key(text)
    except errors.Error as refused:
        assert refused.message
