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
KEYS = "tests/integration/test_api_keys.py"
TENANCY = "tests/integration/test_api_tenancy.py"
LINKS = "tests/integration/test_api_links.py"
BODIES = "tests/unit/test_api_bodies.py"
SWEEP = "tests/integration/test_control_sweep.py"


@dataclass(frozen=True, slots=True)
class Mutant:
    """`old`, which stands once in `path`, becomes `new`, and so do the pairs of `also`, where
    one check stands behind another; `tests` are what pytest is to run."""

    name: str
    path: str
    old: str
    new: str
    tests: tuple[str, ...]
    also: tuple[tuple[str, str], ...] = ()


MUTANTS = (
    # objects
    Mutant(
        "a put in a folder overwrites",
        "promptmill/blobs/folder.py",
        "            os.link(draft.path, path)\n        except FileExistsError:",
        "            path.unlink(missing_ok=True)\n            os.link(draft.path, path)\n"
        "        except FileExistsError:",
        (f"{BLOBS}::test_second_creation_adopts_the_first",),
    ),
    Mutant(
        "a put in S3 overwrites",
        "promptmill/blobs/s3.py",
        '        if create_only:\n            request["IfNoneMatch"] = "*"',
        '        if not create_only:\n            request["IfNoneMatch"] = "*"',
        (f"{BLOBS}::test_second_creation_adopts_the_first",),
    ),
    Mutant(
        "an object that was there is not adopted",
        "worker/filing.py",
        "        bytes.fromhex(there.sha256),\n        there.size,\n",
        "        file.sha256,\n        len(file.data),\n",
        ("tests/unit/test_filing.py::test_an_object_that_was_there_is_adopted_with_its_own_facts",),
    ),
    Mutant(
        "what is noted of an object that never came is not found",
        "promptmill/blobs/folder.py",
        "                yield from self._unborn(Path(folder), set(files), prefix)\n",
        "",
        (
            "tests/contract/test_blobs_folder.py::test_stopped_before_its_object_came_a_note_is_found_and_deleted",
        ),
    ),
    Mutant(
        "the sweep deletes what is young",
        "worker/control/sweep.py",
        "if self._clock() - stored.modified < self._settle:",
        "if self._clock() - stored.modified < 0:",
        (f"{SWEEP}::test_what_is_young_is_looked_at_again",),
    ),
    Mutant(
        "the sweep forgets the parts of a tar",
        "worker/control/sweep.py",
        "            self._others.add(key)",
        "            pass",
        (f"{SWEEP}::test_tar_parts_stay_while_a_row_lies_in_them",),
    ),
    # the slot
    Mutant(
        "acknowledge before commit",
        "worker/slot.py",
        "            insist.on(lambda: self.commit(lease, kept, []))\n",
        "            self.acknowledge(lease)\n"
        "            insist.on(lambda: self.commit(lease, kept, []))\n",
        (f"{SLOT}::test_objects_before_rows_and_rows_before_the_acknowledgement",),
    ),
    Mutant(
        "an outage is charged to the images",
        "worker/slot.py",
        "self.give_back(lease, charge=False, reason=str(error))",
        "self.give_back(lease, charge=True, reason=str(error))",
        (f"{SLOT}::test_an_outage_of_the_store_charges_nobody",),
    ),
    Mutant(
        "what is rendered is thrown away when the store is out for a moment",
        "worker/slot.py",
        "kept = insist.on(lambda: self.put(lease, files))",
        "kept = self.put(lease, files)",
        (f"{SLOT}::test_what_is_rendered_outlasts_a_server_that_is_away",),
    ),
    Mutant(
        "an error of ours is charged to nobody",
        "worker/slot.py",
        "self.give_back(lease, charge=True, reason=type(error).__name__)",
        "self.give_back(lease, charge=False, reason=type(error).__name__)",
        (f"{SLOT}::test_an_error_of_ours_isolates_the_images",),
    ),
    Mutant(
        "one error of ours fails an image whose leases were lost",
        "worker/slot.py",
        "if met < ERRORS_ALLOWED:",
        "if not met:",
        (f"{SLOT}::test_a_lone_image_fails_by_errors_and_not_by_lost_leases",),
    ),
    Mutant(
        "an image that is alone meets its three errors at once",
        "worker/slot.py",
        "self.engine.stopping.wait(PAUSE)  # so that what passes soon is met once",
        "pass",
        (f"{SLOT}::test_a_lone_image_fails_by_errors_and_not_by_lost_leases",),
    ),
    Mutant(
        "an error that no step took ends a slot",
        "worker/slot.py",
        "except Exception:  # what it held expires; its thread must not end",
        "except ZeroDivisionError:",
        (f"{SLOT}::test_a_slot_outlives_whatever_goes_wrong",),
    ),
    Mutant(
        "a zombie may fail images",
        "worker/slot.py",
        "if refused and self.engine.owns(lease):",
        "if refused:",
        (f"{SLOT}::test_a_zombie_fails_nobody",),
    ),
    Mutant(
        "what was cancelled is rendered",
        "worker/slot.py",
        "return [one for one in ready if one.work.job_id in live]",
        "return list(ready)",
        (f"{SLOT}::test_a_cancelled_job_is_not_rendered",),
    ),
    Mutant(
        "a worker's id is used again",
        "worker/app.py",
        'return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"',
        'return f"{socket.gethostname()}-{os.getpid()}"',
        (f"{SLOT}::test_no_two_starts_share_an_identity",),
    ),
    Mutant(
        "neighbours fail with the guilty",
        "worker/render.py",
        "                if len(chunk) == 1:\n"
        '                    outcomes.append(Fault("render_failed"',
        "                if len(chunk) <= 4:\n"
        '                    outcomes.append(Fault("render_failed"',
        ("tests/unit/test_render.py::test_one_poison_among_64_fails_alone_and_keeps_its_place",),
    ),
    # the database
    Mutant(
        "no fence on Postgres",
        "promptmill/store/commits.py",
        "WHERE c.shard = %s AND NOT c.closed\n",
        "WHERE c.shard = %s\n",
        (
            f"{COMMIT}::test_a_cancelled_jobs_items_are_dropped_and_the_others_committed",
            f"{COMMIT}::test_nothing_is_committed_to_a_job_that_is_over",
        ),
    ),
    Mutant(
        "no fence on SQLite",
        "promptmill/store/commits.py",
        'generation = ? "\n        "AND NOT closed"',
        'generation = ?"',
        (
            f"{COMMIT}::test_a_cancelled_jobs_items_are_dropped_and_the_others_committed",
            f"{COMMIT}::test_nothing_is_committed_to_a_job_that_is_over",
        ),
    ),
    Mutant(
        "a late result replaces an earlier one",
        "promptmill/store/commits.py",
        '"ON CONFLICT DO NOTHING RETURNING lane, position, job_id, state, bytes"',
        '"ON CONFLICT (lane, position) DO UPDATE SET sha256 = excluded.sha256 "\n'
        '        "RETURNING lane, position, job_id, state, bytes"',
        (f"{COMMIT}::test_a_terminal_image_never_changes",),
    ),
    Mutant(
        "counters count what was given, not what was new",
        "promptmill/store/commits.py",
        "    _count(conn, entered, shard)\n",
        "    _count(conn, [(r[0], r[1], r[2], r[-2], r[7]) for r in kept], shard)\n",
        (f"{COMMIT}::test_a_result_is_inserted_once_and_counted_once",),
    ),
    Mutant(
        "a completed job leaves its counters open",
        "promptmill/store/control.py",
        "    rows.close_counters(conn, job_id)\n    started = ",
        "    started = ",
        (f"{COMMIT}::test_nothing_is_committed_to_a_job_that_is_over",),
    ),
    # Redis
    Mutant(
        "no epoch check",
        "promptmill/lua/lease.lua",
        "if call('EXISTS', P .. 'epoch') == 0 then return 'COLD' end\n",
        "",
        (f"{QUEUE}::TestLease::test_cold_until_rebuilt",),
    ),
    Mutant(
        "a lost reply is a second lease",
        "promptmill/lua/lease.lua",
        "if given then return given end\n",
        "",
        (f"{QUEUE}::TestLease::test_lost_reply_gives_the_same_lease",),
    ),
    Mutant(
        "reap without an attempt",
        "promptmill/lua/reap.lua",
        "put_back(span, span.attempt + 1)",
        "put_back(span, span.attempt)",
        (
            f"{QUEUE}::TestExpiry",
            f"{REAPER}::test_a_dead_workers_lease_comes_back_charged_and_halved",
        ),
    ),
    Mutant(
        "reap what was renewed meanwhile",
        "promptmill/lua/reap.lua",
        "if deadline and tonumber(deadline) <= now then",
        "if deadline then",
        (f"{QUEUE}::TestExpiry::test_reap_takes_only_what_is_still_expired",),
    ),
    Mutant(
        "a heartbeat renews what another holds",
        "promptmill/lua/beat.lua",
        "if call('SISMEMBER', P .. 'held:' .. worker, id) == 1 then",
        "if call('HEXISTS', P .. 'lease', id) == 1 then",
        (f"{QUEUE}::TestExpiry::test_beat_marks_rendering_and_tells_what_is_gone",),
    ),
    Mutant(
        "replace forgets what is leased",
        "promptmill/lua/replace.lua",
        "    if span.lane == lane and span.gen == gen then\n",
        "    if false then\n",
        (f"{QUEUE}::TestReplace::test_subtracts_leases_and_waiting_retries",),
    ),
    Mutant(
        "replace by a process that slept",
        "promptmill/lua/replace.lua",
        "if tomb and version < tonumber(tomb) then return 0 end\n",
        "",
        (f"{QUEUE}::TestReplace::test_drop_outlives_the_lane",),
    ),
    Mutant(
        "give back to a lane of another generation",
        "promptmill/lua/prelude.lua",
        "if not r or r.gen ~= span.gen then return false end",
        "if not r then return false end",
        (f"{QUEUE}::TestEnds::test_spans_of_an_older_generation_are_dropped",),
    ),
    Mutant(
        "no refund",
        "promptmill/lua/nack.lua",
        "  if r then charge(r, -span.n * r.charge) end\n",
        "",
        (f"{QUEUE}::TestEnds::test_nack_refunds",),
    ),
    # control
    Mutant(
        "no audit",
        "worker/control/app.py",
        '            Duty("audit", 2.0, self.audit.step),\n',
        "",
        (f"{APP}::test_an_enqueue_that_was_lost_is_made_good",),
    ),
    Mutant(
        "the audit reads the database before Redis",
        "worker/control/audit.py",
        "        counts = queue.snapshot(lanes)\n"
        "        ends = conservation.progress(self._db, [job.id for job in page])\n",
        "        ends = conservation.progress(self._db, [job.id for job in page])\n"
        "        counts = queue.snapshot(lanes)\n",
        (
            f"{REPAIRS}::test_what_moves_between_the_two_reads_is_counted_twice_never_not_at_all",
            f"{REPAIRS}::test_no_false_repair_while_everything_moves",
        ),
        also=(
            (
                "        counts = queue.snapshot(suspect.lanes)\n"
                "        terminals = control.lane_terminals(self._db, suspect.lanes)\n",
                "        terminals = control.lane_terminals(self._db, suspect.lanes)\n"
                "        counts = queue.snapshot(suspect.lanes)\n",
            ),
        ),
    ),
    Mutant(
        "a repair reads Redis first, and believes it",
        "worker/control/rebuild.py",
        "    return queue.replace(lane, images.gaps(db, lane.id))\n",
        "    seen = queue.snapshot([lane.id])[lane.id]\n"
        "    return not seen.registered and queue.replace(lane, images.gaps(db, lane.id))\n",
        (f"{REPAIRS}::test_a_lane_lost_by_half_gets_what_it_lacks_and_no_more",),
    ),
    Mutant(
        "the audit repairs at first sight",
        "worker/control/audit.py",
        "if self._clock() - s.since >= self._confirm]",
        "if self._clock() - s.since >= 0]",
        (f"{REPAIRS}::test_a_lost_enqueue_is_repaired_once_per_lane",),
    ),
    Mutant(
        "the queue opens though lanes are missing",
        "worker/control/rebuild.py",
        "                return False  # a crash of Redis lost its newest: the next round starts over\n",
        "                break\n",
        (f"{REPAIRS}::test_a_rebuild_that_lost_its_newest_starts_over",),
    ),
    Mutant(
        "the queue opens though it was emptied",
        "promptmill/lua/epoch.lua",
        "if call('GET', P .. 'rebuilding') ~= token then return 0 end\n"
        "call('RENAME', P .. 'rebuilding', P .. 'epoch')\n",
        "call('SET', P .. 'epoch', token)\n",
        (
            f"{QUEUE}::TestLease::test_cold_when_emptied_while_it_was_rebuilt",
            f"{REPAIRS}::test_a_job_that_came_and_went_during_a_rebuild_starts_it_over",
        ),
    ),
    Mutant(
        "attempt not persisted",
        "worker/control/reaper.py",
        "        control.record_incidents("
        "self._db, [i for each in expired for i in incidents(each)])\n",
        "",
        (f"{REAPER}::test_attempts_survive_the_loss_of_redis",),
    ),
    Mutant(
        "every death counts against the image",
        "worker/control/reaper.py",
        "    return expired.rendering and alone\n",
        "    return expired.rendering or alone\n",
        (f"{REAPER}::test_innocents_are_charged_with_no_crash",),
    ),
    Mutant(
        "a new leader reaps at once",
        "worker/control/reaper.py",
        "        return self._clock() - self._since >= self._seconds\n",
        "        return True\n",
        (f"{REAPER}::test_a_new_leader_waits_one_lease_period",),
    ),
    Mutant(
        "a full disk ends control",
        "worker/control/health.py",
        "        except OSError as error:\n",
        "        except BlockingIOError as error:\n",
        (f"{APP}::test_health_that_cannot_be_written_ends_nobody",),
    ),
    Mutant(
        "everybody leads",
        "promptmill/store/leadership.py",
        "            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        "            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)\n",
        (f"{APP}::test_one_leads_and_the_other_takes_over",),
    ),
    # who may do what
    Mutant(
        "a revoked key is taken",
        "promptmill/store/tenants.py",
        ".where(api_keys.c.prefix == key[:_PREFIX], api_keys.c.revoked_at.is_(None))",
        ".where(api_keys.c.prefix == key[:_PREFIX])",
        (f"{KEYS}::test_a_stream_ends_when_its_key_is_revoked",),
    ),
    Mutant(
        "a key does what it has no scope for",
        "api/deps.py",
        "    if needed not in scopes:\n",
        "    if not scopes:\n",
        (f"{KEYS}::test_a_key_does_what_its_scopes_say_and_no_more",),
    ),
    Mutant(
        "a body is read before the key",
        "api/doors.py",
        "        elif method not in SAFE:\n",
        "        elif method in SAFE:\n",
        (f"{KEYS}::test_who_has_no_key_is_refused_before_the_body_is_read",),
    ),
    Mutant(
        "one key takes every thread",
        "api/doors.py",
        "            await places.free.acquire()\n",
        "            places.free._value -= 1\n",
        (f"{KEYS}::test_one_key_has_so_many_requests_at_once_and_keeps_no_other_waiting",),
    ),
    Mutant(
        "a tenant finds another's job",
        "promptmill/store/rows.py",
        "    query = _BY_NAME if tenant_id is None else _OF_TENANT\n",
        "    query = _BY_NAME\n",
        (f"{TENANCY}",),
    ),
    Mutant(
        "streams are counted for all tenants together",
        "api/feed.py",
        "if self._streams[tenant_id] >= STREAMS:",
        "if self._streams.total() >= STREAMS:",
        (f"{BODIES}::test_the_streams_of_one_tenant_take_none_of_anothers",),
    ),
    Mutant(
        "requests are counted for all tenants together",
        "api/doors.py",
        "            farm.pacing.take(caller[0].id)\n",
        "            farm.pacing.take(0)\n",
        (f"{KEYS}::test_a_tenant_that_asks_too_often_waits_and_slows_nobody_else",),
    ),
    Mutant(
        "a body may drip for ever",
        "api/arrival.py",
        "if self._waited > SILENCE and self.seen < LEAST * self._waited:",
        "if self._waited > SILENCE and self.seen < 0:",
        (f"{BODIES}::test_a_body_that_drips_is_refused",),
    ),
    Mutant(
        "a signed link opens for ever",
        "api/links.py",
        "    if (expires or 0) < time.time():\n",
        "    if (expires or 0) < 0:\n",
        (f"{LINKS}::test_a_link_expires",),
    ),
    Mutant(
        "any signature opens",
        "api/links.py",
        "    if not hmac.compare_digest(genuine.encode(), signature.encode()):\n",
        "    if not signature:\n",
        (LINKS,),
    ),
    Mutant(
        "a webhook may call an address inside by another form",
        "promptmill/addresses.py",
        "        if ip not in _GLOBAL_UNICAST or ip in _DOCUMENTATION:\n",
        "        if ip in _DOCUMENTATION:\n",
        ("tests/unit/test_fuzz.py::test_no_form_of_an_address_inside_is_public",),
    ),
    Mutant(
        "large pictures are decoded side by side",
        "promptmill/pictures.py",
        "_ONE.submit(_upright, file).result() if large else _upright(file)",
        "_upright(file)",
        ("tests/unit/test_inputs.py::test_large_pictures_are_decoded_one_at_a_time",),
    ),
)
