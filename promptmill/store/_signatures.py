# CONTRACT ONLY (deleted by the store's author once the modules exist). db is a Database.
# ---- store/tenants.py
def ensure_default(db) -> Tenant: ...                        # tenant "default", id 1, made by migrate; AUTH=off uses it
def authenticate(db, key: str) -> Tenant | None: ...         # sha256 of the key, constant-time compare, not revoked
def create_key(db, tenant_name: str, *, weight: float = 1.0, max_queued: int | None = None) -> tuple[str, str]: ...  # (key id, secret "pm_..." shown once); makes the tenant if new
def list_keys(db) -> list[ApiKey]: ...                       # id, tenant, prefix, created_at, revoked_at
def revoke_key(db, key_id: str) -> bool: ...
def get(db, tenant_id: int) -> Tenant: ...
def queued_images(db, tenant_id: int) -> int: ...            # unfinished images over open jobs (receiving included)
# ---- store/models.py
def register(db, model: models.Model) -> None: ...           # upsert by name; a changed fingerprint updates
def get(db, name: str) -> models.Model: ...                  # errors.ModelNotFound listing the known names
def all(db) -> list[models.Model]: ...
def remember_cap(db, model: str, device: str, bucket: str, cap: int) -> None: ...   # largest batch that fits; column models.limits JSON
def caps(db, model: str, device: str) -> dict[str, int]: ...
def remember_cost(db, model: str, bucket: str, seconds: float) -> None: ...         # measured seconds per image (EWMA by the worker)
def costs(db, model: str) -> dict[str, float]: ...
# ---- store/submissions.py
def begin(db, job: NewJob, *, idempotency_key: str | None, silent_after: float = 30.0) -> Upload | Replay: ...
    # no key: new job in state receiving. Key known & job finished receiving: Replay. Key being received by a live upload
    # (heartbeat younger than silent_after): errors.InProgress(retry_after). Silent one: takes over (epoch+1, its segments deleted) -> Upload.
def write(db, upload: Upload, segments: Sequence[Segment], maps: Sequence[MapBlock]) -> None: ...  # checks the epoch (errors.Conflict when lost), beats the heartbeat; Postgres: COPY
def beat(db, upload: Upload) -> None: ...
def finish(db, upload: Upload, lanes: Sequence[LaneSpec], *, total: int, request_hash: str, max_queued: int | None, outbox event etc.) -> Job: ...
    # one tx: job queued, lanes, 16 counter shards, total; refuses with errors.LimitExceeded over max_queued (tenant's unfinished images), >64 lanes -> BadRequest
def abandon(db, upload: Upload) -> None: ...                 # deletes job, segments, maps; frees the key
def stale(db, silent_after: float) -> list[Upload]: ...      # for control: uploads whose heartbeat is silent; control abandons them after an hour
# ---- store/jobs.py
def get(db, tenant_id: int | None, public_id: str) -> Job: ...        # NotFound also for another tenant's; None = any tenant (worker, control)
def page(db, tenant_id: int, *, after: str | None, limit: int, states: Sequence[JobState] | None = None) -> tuple[list[Job], bool]: ...  # newest first; receiving ones not shown
def lanes(db, job_id: int) -> list[Lane]: ...
def queue_lanes(db, job: Job) -> list[QueueLane]: ...                 # what queue.replace needs
def pause(db, tenant_id, public_id) -> Job: ...                       # each: one tx, checks LEGAL, version+1, outbox row where a webhook wants it
def resume(db, tenant_id, public_id) -> Job: ...
def cancel(db, tenant_id, public_id) -> Job: ...                      # cancelling: closes all counter shards in the same tx; cancelled/completed stay as they are (idempotent)
def retry(db, tenant_id, public_id, *, codes: Sequence[str] | None, ) -> tuple[Job, int]: ...   # failed rows deleted (by error code), failed-=k on one shard, closed=false, generation+1 on job and counters, state queued
def delete(db, tenant_id, public_id) -> Job: ...                      # tombstone: rows, segments, maps, incidents deleted; job row reduced to id+tombstone (no prompt bytes); live job -> cancels first, control finishes
def renderable(db, pairs: Mapping[int, int]) -> set[int]: ...         # {job_id: generation} -> ids that are queued at that generation now
def started(db, job_ids) -> None: ...                                 # started_at if null
# ---- store/images.py
def fetch(db, spans: Sequence[LeasedSpan], cache: SegmentCache) -> list[Work]: ...  # skips positions that are terminal, jobs not queued or of another generation; cache: LRU of decoded segments + immutable job heads, thread-safe
def commit(db, results: Sequence[Result], *, shard: int) -> Committed: ...          # Committed(inserted: frozenset[(lane, position)], dropped_jobs: frozenset[int]); ONE tx for the micro-batch, fence inside, ON CONFLICT DO NOTHING; sets started_at
def get(db, job: Job, index: int) -> Image: ...                       # NotFound out of range
def page(db, job: Job, *, after: int | None, limit: int, states: Sequence[ImageState] | None = None, code: str | None = None) -> tuple[list[Image], bool]: ... # in index order
def existing(db, job_id: int, generation: int) -> Iterator[...]: ...  # keys that have rows, for the sweep
def gaps(db, lane_id: int) -> list[Span]: ...                         # positions without a terminal row, as spans, attempts from incidents (attempt = max recorded)
def by_sha256(db, tenant_id, sha: bytes) -> list[(public job id, index)]: ...
def error_counts(db, job_id) -> dict[str, int]: ...
# ---- store/control.py   (what the control process needs)
def open_jobs(db, model: str) -> list[Job]: ...                       # LIVE states
def lane_terminals(db, lane_ids) -> dict[int, int]: ...               # terminal rows per lane
def finish_ready(db) -> list[Job]: ...                                # queued/paused jobs whose counters reach total -> completed + closed + outbox, one tx each
def finish_cancelling(db, job_id) -> Job | None: ...                  # cancelling -> cancelled (control: when no live lease holds it)
def expire(db) -> list[Job]: ...                                      # expires_at passed -> expired, counters closed
def record_incidents(db, incidents: Sequence[Incident]) -> None: ...  # unique by (lease_id, lane, start)
def crashes(db, lane: int, position: int) -> int: ...                 # deaths charged to this image
def fail_crashed(db, ...) -> see commit()                             # control commits a Result(FAILED, worker_crashed) through images.commit
def outbox_due(db, limit) / outbox_sent(db, id) / outbox_failed(db, id, due_at, detail): ...
def sweepable(db) -> list[Job]; def swept(db, job_id, generation); def tombstones(db) ; def purge(db, job_id)
def retention(db, days) -> list[Job]
