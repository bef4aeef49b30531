"""The registered models: what they can do, how large a batch fits on which device, and
what an image was measured to cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection, Row, delete, func, literal_column, select, update

from promptmill import errors
from promptmill.models import Caps, Model
from promptmill.store import insert_ignore
from promptmill.store.database import Database
from promptmill.tables import LIVE
from promptmill.tables import jobs as job_table
from promptmill.tables import models as table


def _model(row: Row[Any]) -> Model:
    caps = Caps.from_json(row.caps)
    return Model(row.name, caps, row.fingerprint, row.description, row.updated_at)


def _values(db: Database, model: Model) -> dict[str, Any]:
    return {
        "caps": model.caps.to_json(),
        "fingerprint": model.fingerprint,
        "description": model.description,
        "updated_at": db.now(),
    }


def _insert(conn: Connection, name: str, values: Mapping[str, Any]) -> bool:
    fresh = {"name": name, "limits": {}, "costs": {}, **values}
    made = insert_ignore(conn, table).values(fresh).returning(table.c.name)
    return conn.execute(made).first() is not None


def register(db: Database, model: Model) -> None:
    """Upserts by name. What was measured stays."""
    values = _values(db, model)

    def work(conn: Connection) -> None:
        _insert(conn, model.name, values)
        conn.execute(update(table).where(table.c.name == model.name).values(values))

    db.write(work)


def add(db: Database, model: Model) -> bool:
    """Registers a model ahead of its first worker. One that is known stays as its workers
    told of it. Whether it is new."""
    values = _values(db, model)
    return db.write(lambda conn: _insert(conn, model.name, values))


def remove(db: Database, name: str, *, quiet: float) -> None:
    """Forgets a model, with what was measured of it. Its finished jobs stay. Raises
    `errors.ModelNotFound`, and `errors.Conflict` while jobs of it are unfinished or when a
    worker registered it less than `quiet` seconds ago: that one may not have reported yet."""

    def work(conn: Connection) -> None:
        row = _row(conn, name, lock=True)
        if row.fingerprint and db.now() - row.updated_at < quiet:
            raise errors.Conflict(f"a worker registered {name} a moment ago: stop it first")
        unfinished = conn.scalar(
            select(func.count())
            .select_from(job_table)
            .where(literal_column(f"jobs.{LIVE}"), job_table.c.model == name)
        )
        if unfinished:
            raise errors.Conflict(
                f"{unfinished} job(s) of {name} are unfinished: cancel them or let them end"
            )
        conn.execute(delete(table).where(table.c.name == name))

    db.write(work)


def hold(conn: Connection, name: str) -> None:
    """The model stays until this transaction ends: for whoever begins a job of it. Raises
    `errors.ModelNotFound`."""
    kept = select(table.c.name).where(table.c.name == name)
    if conn.scalar(kept.with_for_update(read=True, key_share=True)) is None:
        _row(conn, name)


def _row(conn: Connection, name: str, *, lock: bool = False) -> Row[Any]:
    query = select(table).where(table.c.name == name)
    row = conn.execute(query.with_for_update() if lock else query).first()
    if row is not None:
        return row
    names = conn.scalars(select(table.c.name).order_by(table.c.name)).all()
    known = ", ".join(names) or "none; is a worker running?"
    raise errors.ModelNotFound(f"there is no model {name!r} (registered: {known})", param="model")


def get(db: Database, name: str) -> Model:
    """Raises `errors.ModelNotFound`, which lists the names that are known."""
    return db.read(lambda conn: _model(_row(conn, name)))


def all(db: Database) -> list[Model]:
    rows = db.read(lambda conn: conn.execute(select(table).order_by(table.c.name)).all())
    return [_model(row) for row in rows]


def _amend(db: Database, name: str, column: str, amend: Callable[[dict[str, Any]], None]) -> None:
    def work(conn: Connection) -> None:
        held = dict(_row(conn, name, lock=True)._mapping[column])
        amend(held)
        conn.execute(update(table).where(table.c.name == name).values({column: held}))

    db.write(work)


def remember_cap(db: Database, model: str, place: str, bucket: str, cap: int) -> None:
    """The largest batch of `bucket` to run at `place`: weights and the device they are on."""
    _amend(db, model, "limits", lambda held: held.setdefault(place, {}).update({bucket: cap}))


def settle_cap(db: Database, model: str, place: str, bucket: str, cap: int) -> int:
    """What a worker measured to be the best batch; the answer is what stands, if anything
    does (`standing_cap`): all workers of a place run one shape."""
    settled: list[int] = []

    def amend(held: dict[str, Any]) -> None:
        known = held.setdefault(place, {})
        standing = _standing(known, bucket)
        settled.append(known.setdefault(bucket, cap if standing is None else standing))

    _amend(db, model, "limits", amend)
    return settled[-1]


def standing_cap(db: Database, model: str, place: str, bucket: str) -> int | None:
    """What was settled at `place` for the bucket, else the smallest for one of its kind."""
    return _standing(caps(db, model, place), bucket)


def _standing(known: Mapping[str, int], bucket: str) -> int | None:
    if bucket in known:
        return known[bucket]
    kind = Caps.kind(bucket)
    return min((cap for one, cap in known.items() if Caps.kind(one) == kind), default=None)


def caps(db: Database, model: str, place: str) -> dict[str, int]:
    """Bucket → largest batch to run at `place`, where one is known."""
    return dict(db.read(lambda conn: _row(conn, model)).limits.get(place, {}))


def remember_cost(db: Database, model: str, bucket: str, seconds: float) -> None:
    """Measured generator-seconds per image."""
    _amend(db, model, "costs", lambda held: held.update({bucket: seconds}))


def costs(db: Database, model: str) -> dict[str, float]:
    return dict(db.read(lambda conn: _row(conn, model)).costs)
