"""Shards as their builders see them: claimed for a while, sealed by whoever claimed last. A
shard whose builder fell silent is claimed again; what the silent one seals later is refused
by the fence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, and_, literal_column, or_, select, update

from promptmill.exports import Export, File, Kind, Shard, ShardState, State
from promptmill.store import exports
from promptmill.store.database import Database
from promptmill.tables import export_shards as table
from promptmill.tables import exports as export_table

FAULTS: Final = 5  # so often its builder may raise before the export fails

# As text, so that SQLite sees that the partial index holds what is asked for.
_OPEN: Final[ColumnElement[bool]] = literal_column("export_shards.state IN ('planned', 'building')")


def claim(db: Database, owner: str, *, seconds: float) -> tuple[Export, Shard] | None:
    """The next shard that nobody builds, for so many seconds; None when there is none."""
    if db.read(lambda conn: conn.execute(_next(db.now())).first()) is None:
        return None  # most looks find nothing, and a read costs nobody a wait
    return db.write(lambda conn: _claim(conn, owner, db.now(), seconds))


def _claim(conn: Connection, owner: str, now: float, seconds: float) -> tuple[Export, Shard] | None:
    s = table.c
    found = conn.execute(_next(now).with_for_update(skip_locked=True, of=table)).first()
    if found is None:
        return None
    mine = (s.export_id == found.export_id) & (s.number == found.number)
    values = {
        "state": ShardState.BUILDING.value,
        "fence": s.fence + 1,
        "owner": owner,
        "leased_until": now + seconds,
    }
    conn.execute(update(table).where(mine).values(**values))
    shard = exports.to_shard(conn.execute(select(table).where(mine)).one())
    return exports.load(conn, export_table.c.id == shard.export_id)[0], shard


def _next(now: float) -> Select[Any]:
    """Shards that failed before come last."""
    s = table.c
    live = and_(
        export_table.c.id == s.export_id,
        export_table.c.deleted_at.is_(None),
        export_table.c.state == State.BUILDING.value,
    )
    free = or_(s.state == ShardState.PLANNED.value, s.leased_until < now)
    query = select(s.export_id, s.number).join(export_table, live).where(_OPEN, free)
    return query.order_by(s.faults, s.export_id, s.number).limit(1)


def _held(shard: Shard) -> ColumnElement[bool]:
    """The shard, while this claim on it is the last one."""
    return and_(
        table.c.export_id == shard.export_id,
        table.c.number == shard.number,
        table.c.fence == shard.fence,
        table.c.state == ShardState.BUILDING.value,
    )


def renew(db: Database, shard: Shard, *, seconds: float) -> bool:
    """False when the shard is somebody else's by now, or its export is deleted."""
    alive = select(export_table.c.id).where(
        export_table.c.id == shard.export_id, export_table.c.deleted_at.is_(None)
    )
    longer = (
        update(table).where(_held(shard), alive.exists()).values(leased_until=db.now() + seconds)
    )
    return bool(db.write(lambda conn: conn.execute(longer).rowcount))


def seal(db: Database, shard: Shard, files: Sequence[File], summary: Mapping[str, Any]) -> bool:
    """Makes the shard visible. False when the claim was lost: another's files are, or will
    be, what is seen."""

    def work(conn: Connection) -> bool:
        values = {
            "state": ShardState.SEALED.value,
            "files": [asdict(file) for file in files],
            "summary": dict(summary),
            "images": int(summary.get("successes", 0)),
            "failed": int(summary.get("failed", 0)),
            "bytes": sum(file.bytes for file in files),
            "sealed_at": db.now(),
            "leased_until": None,
        }
        sealed = conn.execute(update(table).where(_held(shard)).values(**values)).rowcount
        if sealed and shard.kind is Kind.CARD:
            _finish(conn, shard, db.now())
        return bool(sealed)

    return db.write(work)


def _finish(conn: Connection, shard: Shard, now: float) -> None:
    """The card is the last of an export, unless the job was retried since."""
    e = export_table.c
    conn.execute(
        update(export_table)
        .where(e.id == shard.export_id, e.cards == -shard.number, e.generation == shard.high)
        .values(state=State.COMPLETED.value, finished_at=now)
    )


def give_back(db: Database, shard: Shard, *, error: str | None = None) -> None:
    """Ends a claim. error: its builder raised; after FAULTS of them the export fails."""

    def work(conn: Connection) -> None:
        values: dict[str, Any] = {"state": ShardState.PLANNED.value, "leased_until": None}
        if error is not None:
            values["faults"] = table.c.faults + 1
        if not conn.execute(update(table).where(_held(shard)).values(**values)).rowcount:
            return
        mine = (table.c.export_id == shard.export_id) & (table.c.number == shard.number)
        faults = conn.scalar(select(table.c.faults).where(mine)) or 0
        if error is not None and faults >= FAULTS:
            conn.execute(update(table).where(mine).values(state=ShardState.FAILED.value))
            conn.execute(
                update(export_table)
                .where(export_table.c.id == shard.export_id)
                .values(state=State.FAILED.value, error=error, finished_at=db.now())
            )

    db.write(work)
