"""The worker process: one generator, one engine, one Celery worker around them. The
composition root; nothing imports it but the command line."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import socket
import threading
from dataclasses import replace
from typing import Any

from celery import Celery, bootsteps, signals
from celery.worker.control import control_command

from promptmill import errors, failpoints, garbage, models, telemetry, traces, wakeups
from promptmill.blobs import open_store
from promptmill.redis_queue import RedisQueue
from promptmill.settings import Settings
from promptmill.store import models as store_models
from promptmill.store.database import Database
from worker import encode
from worker.checks import from_settings
from worker.engine import Engine
from worker.events import TaskEvents
from worker.expand import expander as expanding
from worker.exports.builder import Builder
from worker.generators import registry
from worker.generators.base import Generator

log = logging.getLogger(__name__)

STOP_SECONDS = 25.0  # for the slots to finish; a supervisor's patience is 30 s
BUILDER_SECONDS = 2.0  # for a shard to be given back; else its claim ends by itself
LAST_RESORT = 29.0


@control_command()
def drain(state: Any) -> dict[str, str]:
    """Stop leasing, finish what is rendering, give back the rest."""
    state.consumer.controller.engine.drain()
    return {"ok": "draining"}


@control_command()
def resume(state: Any) -> dict[str, str]:
    """Lease again after a drain."""
    state.consumer.controller.engine.resume()
    return {"ok": "leasing"}


def engine_step(engine: Engine) -> type[bootsteps.StartStopStep]:
    """A Celery bootstep that starts the engine with the worker and stops it with it."""

    class EngineStep(bootsteps.StartStopStep):
        requires = ("celery.worker.components:Pool",)

        def start(self, parent: Any) -> None:
            def watched() -> bool:
                dispatcher = getattr(parent.consumer, "event_dispatcher", None)
                return bool(dispatcher and "task" in (dispatcher.groups or ("task",)))

            parent.engine = engine
            engine.events = TaskEvents(parent.app, parent.hostname, watched)
            engine.start()

        def stop(self, parent: Any) -> None:
            if not engine.stop(STOP_SECONDS):
                log.error("a slot is busy at the deadline: its lease expires by itself")

    return EngineStep


def exports_step(builder: Builder) -> type[bootsteps.StartStopStep]:
    """A Celery bootstep that has shards of exports built beside the rendering."""

    class ExportsStep(bootsteps.StartStopStep):
        requires = ("celery.worker.components:Pool",)

        def start(self, parent: Any) -> None:
            builder.start()

        def stop(self, parent: Any) -> None:
            builder.stop(BUILDER_SECONDS)

    return ExportsStep


def open_builder(settings: Settings, engine: Engine) -> Builder:
    return Builder(
        engine.db,
        engine.blobs,
        owner=engine.worker,
        lease_seconds=settings.lease_seconds,
        busy=lambda: bool(engine.held()),
        halted=engine.draining.is_set,
    )


def build(settings: Settings, engine: Engine) -> Celery:
    """The Celery app whose worker carries `engine` and whose wake-ups poke it."""
    app: Celery = wakeups.celery_app(settings)
    app.steps["worker"].add(engine_step(engine))
    app.steps["worker"].add(exports_step(open_builder(settings, engine)))

    @app.task(name=wakeups.TASK, ignore_result=True)
    def wake(model: str) -> None:
        engine.poke()

    def stop_soon(**_: Any) -> None:
        engine.drain()
        last = threading.Timer(LAST_RESORT, os._exit, (0,))
        last.daemon = True
        last.start()

    signals.worker_shutting_down.connect(stop_soon, weak=False)
    return app


def open_generator(settings: Settings) -> Generator:
    """Raises `errors.Error` that names the setting at fault."""
    try:
        generator = registry.create(settings.model, settings.model_options)
        generator.load(device=settings.device, quantization=settings.quantization)
    except errors.Error as error:
        if "PROMPTMILL_" in str(error):
            raise
        kind = errors.SettingInvalid if error.refuses else errors.Error
        raise kind(f"PROMPTMILL_MODEL={settings.model}: {error}") from error
    generator.warmup(generator.caps.batch_shapes)
    return generator


def open_engine(settings: Settings) -> Engine:
    """Checks every server before the weights are loaded, registers the model. Raises
    `errors.Error` with one line that names the setting and the remedy."""
    db = Database(settings.database)
    db.require_schema()
    blobs = open_store(settings)
    blobs.probe()
    queue = RedisQueue(settings.redis, settings.model_name)
    queue.ping()
    checks = from_settings(settings)
    generator = open_generator(settings)
    fingerprint = of_files(generator.fingerprint)
    expander = expanding.opened(settings.data_dir)
    caps = replace(generator.caps, expander=expander.fingerprint if expander else "")
    store_models.register(db, models.Model(generator.name, caps, fingerprint))
    tell_of_others(queue, fingerprint)
    return Engine(
        settings,
        worker=identity(),
        generator=generator,
        fingerprint=fingerprint,
        db=db,
        blobs=blobs,
        queue=queue,
        checks=checks,
        expander=expander,
    )


def tell_of_others(queue: RedisQueue, fingerprint: str) -> None:
    """Warns where live workers of the model draw with another fingerprint."""
    others = {str(one["fingerprint"]) for one in queue.workers()} - {fingerprint}
    if others:
        log.warning(
            "%s is drawn with other fingerprints, too: %s; here with %s",
            queue.model, ", ".join(sorted(others)), fingerprint,
        )  # fmt: skip


def of_files(generator: str) -> str:
    """The fingerprint of a generator and of the encoders that make files of its pictures."""
    encoders = "\0".join(encode.encoder(format) for format in encode.CONTENT_TYPES)
    return f"{generator}-{hashlib.sha256(encoders.encode()).hexdigest()[:6]}"


def identity() -> str:
    """Host, process and a nonce of this start: a reused id would hide a dead worker."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


def run(settings: Settings) -> int:
    """Serves until SIGTERM; the exit status of the process."""
    telemetry.configure("worker", settings.log_level)
    tracing = traces.configure("worker", settings.otel_endpoint)
    failpoints.arm(settings.failpoints)
    engine = open_engine(settings)
    engine.traces = tracing
    app = build(settings, engine)
    garbage.settle()
    worker = app.Worker(
        hostname=f"render@{engine.worker}",
        queues=[wakeups.queue_name(settings.model_name)],
        pool="threads",
        concurrency=1,
        prefetch_multiplier=1,
        without_gossip=True,
        without_mingle=True,
        loglevel=settings.log_level,
    )
    try:
        worker.start()
    except errors.Unavailable as outage:
        log.error("%s", outage)
        return 1
    finally:
        tracing.close()
    return int(worker.exitcode or 0)
