"""Wrong versions of the farm, each a mistake that somebody could make, and the tests that
ought to notice. Data only."""

from __future__ import annotations

from dataclasses import dataclass

BLOBS = "tests/contract/test_blobs.py"
COMMIT = "tests/contract/test_store_commit.py"
QUEUE = "tests/contract/test_queue.py"
APP = "tests/integration/test_control_app.py"
REAPER = "tests/integration/test_control_reaper.py"
REPAIRS = "tests/integration/test_control_repairs.py"
SLOT = "tests/integration/test_worker_slot.py"
SWEEP = "tests/integration/test_control_sweep.py"


@dataclass(frozen=True, slots=True)
class Mutant:
    """`old`, which stands once in `path`, becomes `new`; `tests` are pytest arguments."""

    name: str
    path: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTANTS = (
    # objects
    Mutant(
        "a put in a folder overwrites",
        "promptmill/blobs/folder.py",
        "            os.link(draft.path, path)\n        except FileExistsError:",
        "            path.unlink(missing_ok=True)\n            os.link(draft.path, path)\n"
        "        except FileExistsError:",
        (BLOBS,),
    ),
    Mutant(
        "a put in S3 overwrites",
        "promptmill/blobs/s3.py",
        '        if create_only:\n            request["IfNoneMatch"] = "*"',
        '        if not create_only:\n            request["IfNoneMatch"] = "*"',
        (BLOBS,),
    ),
    Mutant(
        "an object that was there is not adopted",
        "worker/filing.py",
        "        bytes.fromhex(there.sha256),\n        there.size,\n",
        "        file.sha256,\n        len(file.data),\n",
        ("tests/unit/test_filing.py",),
    ),
    Mutant(
        "the sweep deletes what is young",
        "worker/control/sweep.py",
        "if self._clock() - stored.modified < self._settle:",
        "if self._clock() - stored.modified < 0:",
        (SWEEP,),
    ),
    Mutant(
        "the sweep forgets the parts of a tar",
        "worker/control/sweep.py",
        "            self._others.add(key)",
        "            pass",
        (SWEEP,),
    ),
    # the slot
    Mutant(
        "acknowledge before commit",
        "worker/slot.py",
        "            self.commit(lease, kept, [*refused, *lacking])\n",
        "            self.acknowledge(lease)\n"
        "            self.commit(lease, kept, [*refused, *lacking])\n",
        (SLOT,),
    ),
    Mutant(
        "an outage is charged to the images",
        "worker/slot.py",
        "self.give_back(lease, charge=False, reason=str(error))",
        "self.give_back(lease, charge=True, reason=str(error))",
        (SLOT,),
    ),
    Mutant(
        "an error of ours is charged to nobody",
        "worker/slot.py",
        "self.give_back(lease, charge=True, reason=type(error).__name__)",
        "self.give_back(lease, charge=False, reason=type(error).__name__)",
        (SLOT,),
    ),
    Mutant(
        "a zombie may fail images",
        "worker/slot.py",
        "if refused and self.engine.owns(lease):",
        "if refused:",
        (SLOT,),
    ),
    Mutant(
        "what was cancelled is rendered",
        "worker/slot.py",
        "return [one for one in ready if one.work.job_id in live]",
        "return list(ready)",
        (SLOT,),
    ),
    Mutant(
        "a worker's id is used again",
        "worker/app.py",
        'return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"',
        'return f"{socket.gethostname()}-{os.getpid()}"',
        (SLOT,),
    ),
    Mutant(
        "neighbours fail with the guilty",
        "worker/render.py",
        "                if len(chunk) == 1:\n"
        '                    outcomes.append(Fault("render_failed"',
        "                if len(chunk) <= 4:\n"
        '                    outcomes.append(Fault("render_failed"',
        ("tests/unit/test_render.py",),
    ),
    # the database
    Mutant(
        "no fence on Postgres",
        "promptmill/store/commits.py",
        "WHERE c.shard = %s AND NOT c.closed\n",
        "WHERE c.shard = %s\n",
        (COMMIT,),
    ),
    Mutant(
        "no fence on SQLite",
        "promptmill/store/commits.py",
        'generation = ? "\n        "AND NOT closed"',
        'generation = ?"',
        (COMMIT,),
    ),
    Mutant(
        "a late result replaces an earlier one",
        "promptmill/store/commits.py",
        '"ON CONFLICT DO NOTHING RETURNING lane, position, job_id, state, bytes"',
        '"ON CONFLICT (lane, position) DO UPDATE SET sha256 = excluded.sha256 "\n'
        '        "RETURNING lane, position, job_id, state, bytes"',
        (COMMIT,),
    ),
    Mutant(
        "counters count what was given, not what was new",
        "promptmill/store/commits.py",
        "    _count(conn, entered, shard)\n",
        "    _count(conn, [(r[0], r[1], r[2], r[-2], r[7]) for r in kept], shard)\n",
        (COMMIT,),
    ),
    Mutant(
        "a job completes one image early",
        "promptmill/store/control.py",
        "    if job.counts.done + job.counts.failed < job.counts.total:\n        return None\n",
        "",
        ("tests/contract/test_store_control.py", APP),
    ),
    # Redis
    Mutant(
        "no epoch check",
        "promptmill/lua/lease.lua",
        "if call('EXISTS', P .. 'epoch') == 0 then return 'COLD' end\n",
        "",
        (QUEUE,),
    ),
    Mutant(
        "a lost reply is a second lease",
        "promptmill/lua/lease.lua",
        "if given then return given end\n",
        "",
        (QUEUE,),
    ),
    Mutant(
        "reap without an attempt",
        "promptmill/lua/reap.lua",
        "put_back(span, span.attempt + 1)",
        "put_back(span, span.attempt)",
        (QUEUE, REAPER),
    ),
    Mutant(
        "reap what was renewed meanwhile",
        "promptmill/lua/reap.lua",
        "if deadline and tonumber(deadline) <= now then",
        "if deadline then",
        (QUEUE,),
    ),
    Mutant(
        "a heartbeat renews what another holds",
        "promptmill/lua/beat.lua",
        "if call('SISMEMBER', P .. 'held:' .. worker, id) == 1 then",
        "if call('HEXISTS', P .. 'lease', id) == 1 then",
        (QUEUE,),
    ),
    Mutant(
        "replace forgets what is leased",
        "promptmill/lua/replace.lua",
        "    if span.lane == lane and span.gen == gen then\n",
        "    if false then\n",
        (QUEUE,),
    ),
    Mutant(
        "replace by a process that slept",
        "promptmill/lua/replace.lua",
        "if tomb and version < tonumber(tomb) then return 0 end\n",
        "",
        (QUEUE,),
    ),
    Mutant(
        "give back to a lane of another generation",
        "promptmill/lua/prelude.lua",
        "if not r or r.gen ~= span.gen then return false end",
        "if not r then return false end",
        (QUEUE,),
    ),
    Mutant(
        "no refund",
        "promptmill/lua/nack.lua",
        "  if r then charge(r, -span.n * r.charge) end\n",
        "",
        (QUEUE,),
    ),
    # control
    Mutant(
        "no audit",
        "worker/control/app.py",
        '            Duty("audit", 2.0, self.audit.step),\n',
        "",
        (APP,),
    ),
    Mutant(
        "the audit reads the database before Redis",
        "worker/control/audit.py",
        "        counts = queue.snapshot(lanes)\n"
        "        ends = conservation.progress(self._db, [job.id for job in page])\n",
        "        ends = conservation.progress(self._db, [job.id for job in page])\n"
        "        counts = queue.snapshot(lanes)\n",
        (REPAIRS,),
    ),
    Mutant(
        "a repair reads Redis first, and believes it",
        "worker/control/rebuild.py",
        "    return queue.replace(lane, images.gaps(db, lane.id))\n",
        "    seen = queue.snapshot([lane.id])[lane.id]\n"
        "    return not seen.registered and queue.replace(lane, images.gaps(db, lane.id))\n",
        (REPAIRS,),
    ),
    Mutant(
        "the audit repairs at first sight",
        "worker/control/audit.py",
        "if self._clock() - s.since >= self._confirm]",
        "if self._clock() - s.since >= 0]",
        (REPAIRS,),
    ),
    Mutant(
        "the queue opens before it is filled",
        "worker/control/rebuild.py",
        "                return False  # emptied again meanwhile: the next round starts over\n",
        "                break\n",
        (REPAIRS,),
    ),
    Mutant(
        "attempt not persisted",
        "worker/control/reaper.py",
        "        control.record_incidents("
        "self._db, [i for each in expired for i in incidents(each)])\n",
        "",
        (REAPER,),
    ),
    Mutant(
        "every death counts against the image",
        "worker/control/reaper.py",
        "    return expired.rendering and alone\n",
        "    return expired.rendering or alone\n",
        (REAPER,),
    ),
    Mutant(
        "a new leader reaps at once",
        "worker/control/reaper.py",
        "        return self._clock() - self._since >= self._seconds\n",
        "        return True\n",
        (REAPER,),
    ),
    Mutant(
        "everybody leads",
        "promptmill/store/leadership.py",
        "            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        "            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)\n",
        (APP,),
    ),
)
