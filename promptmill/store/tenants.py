"""Tenants and their API keys. Of a key only its SHA-256 is kept, and what it may do."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, Row, func, select, update

from promptmill import errors
from promptmill.records import Tenant
from promptmill.store import insert_ignore, rows
from promptmill.store.database import Database
from promptmill.tables import api_keys, job_counters, tenants
from promptmill.tables import jobs as job_table

DEFAULT: Final = "default"
_PREFIX: Final = 11  # "pm_" and 8 characters of the secret, kept in clear to find the key
_FORM: Final = re.compile(r"pm_[0-9a-f]{48}")
_OPEN: Final = ["receiving", "queued", "paused"]


class Scope(StrEnum):
    """What a key may do with what is its tenant's."""

    READ = "read"  # look
    SUBMIT = "submit"  # make something new
    MANAGE = "manage"  # change and delete what is there
    METRICS = "metrics"  # read the farm's metrics, which count over all tenants


TENANTS_OWN: Final = (Scope.READ, Scope.SUBMIT, Scope.MANAGE)


@dataclass(frozen=True, slots=True)
class ApiKey:
    id: str
    tenant: str
    prefix: str
    scopes: frozenset[Scope]
    created_at: float
    revoked_at: float | None


def _tenant(row: Row[Any]) -> Tenant:
    return Tenant(row.id, row.name, row.weight, row.max_queued)


def _named(conn: Connection, name: str, now: float) -> Tenant:
    values = {"name": name, "weight": 1.0, "max_queued": None, "created_at": now}
    conn.execute(insert_ignore(conn, tenants).values(values))
    return _tenant(conn.execute(select(tenants).where(tenants.c.name == name)).one())


def ensure_default(db: Database) -> Tenant:
    """The tenant of a farm without keys."""
    return db.write(lambda conn: _named(conn, DEFAULT, db.now()))


def get(db: Database, tenant_id: int) -> Tenant:
    """Raises `errors.NotFound`."""
    row = db.read(lambda c: c.execute(select(tenants).where(tenants.c.id == tenant_id)).first())
    if row is None:
        raise errors.NotFound("there is no such tenant")
    return _tenant(row)


Caller = tuple[Tenant, frozenset[Scope]]


def authenticate(db: Database, key: str) -> Caller | None:
    """The tenant of an API key that is not revoked, and what the key may do. What cannot be
    a key costs no query."""
    if _FORM.fullmatch(key) is None:
        return None
    given = hashlib.sha256(key.encode()).digest()
    query = (
        select(tenants, api_keys.c.sha256, api_keys.c.scopes)
        .join(api_keys, api_keys.c.tenant_id == tenants.c.id)
        .where(api_keys.c.prefix == key[:_PREFIX], api_keys.c.revoked_at.is_(None))
    )
    for row in db.read(lambda conn: conn.execute(query).all()):
        if hmac.compare_digest(bytes(row.sha256), given):
            return _tenant(row), _scopes(row.scopes)
    return None


def _scopes(text: str) -> frozenset[Scope]:
    return frozenset(Scope(word) for word in text.split())


def create_key(
    db: Database,
    tenant_name: str,
    *,
    weight: float | None = None,
    max_queued: int | None = None,
    scopes: Collection[str] = TENANTS_OWN,
) -> tuple[str, str]:
    """(key id, secret). The secret is shown this once. Makes the tenant if it is new, and gives it
    the weight and the limit where they are told. The key may do what `scopes` say and no more."""
    key_id = f"key_{secrets.token_hex(8)}"
    secret = f"pm_{secrets.token_hex(24)}"

    def work(conn: Connection) -> None:
        now = db.now()
        tenant = _named(conn, tenant_name, now)
        told = {"weight": weight, "max_queued": max_queued}
        if changed := {name: value for name, value in told.items() if value is not None}:
            conn.execute(tenants.update().where(tenants.c.id == tenant.id).values(changed))
        conn.execute(
            api_keys.insert().values(
                id=key_id,
                tenant_id=tenant.id,
                prefix=secret[:_PREFIX],
                sha256=hashlib.sha256(secret.encode()).digest(),
                scopes=" ".join(scope for scope in Scope if scope in scopes),
                created_at=now,
            )
        )

    db.write(work)
    return key_id, secret


def list_keys(db: Database) -> list[ApiKey]:
    query = (
        select(api_keys, tenants.c.name)
        .join(tenants, tenants.c.id == api_keys.c.tenant_id)
        .order_by(api_keys.c.created_at, api_keys.c.id)
    )
    found = db.read(lambda conn: conn.execute(query).all())
    return [
        ApiKey(r.id, r.name, r.prefix, _scopes(r.scopes), r.created_at, r.revoked_at) for r in found
    ]


def revoke_key(db: Database, key_id: str) -> bool:
    """True when the key was valid until now."""
    change = (
        update(api_keys)
        .where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
        .values(revoked_at=db.now())
    )
    return db.write(lambda conn: conn.execute(change).rowcount == 1)


def unfinished(conn: Connection, tenant_id: int, *, but: int | None = None) -> int:
    """Images without a result over the tenant's open jobs, those being received too. The
    counters of jobs that have not begun are not read: a long backlog costs its jobs only."""
    mine = [
        job_table.c.tenant_id == tenant_id,
        job_table.c.state.in_(_OPEN),
        job_table.c.deleted_at.is_(None),
    ]
    if but is not None:
        mine.append(job_table.c.id != but)
    mine_live = [rows.IS_LIVE, *mine]
    total = conn.scalar(select(func.coalesce(func.sum(job_table.c.total), 0)).where(*mine_live))
    ended = conn.scalar(
        select(func.coalesce(func.sum(job_counters.c.done + job_counters.c.failed), 0))
        .join(job_table, job_table.c.id == job_counters.c.job_id)
        .where(*mine_live, job_table.c.started_at.is_not(None))
    )
    return int(total or 0) - int(ended or 0)


def queued_images(db: Database, tenant_id: int) -> int:
    return db.read(lambda conn: unfinished(conn, tenant_id))
