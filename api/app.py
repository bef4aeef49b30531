"""The composition root: settings in, an application or a running server out."""

from __future__ import annotations

import errno
import re
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import uvicorn
from fastapi import FastAPI

from api import errors as api_errors
from api import metrics, openapi
from api.bodies import OWN_WHOLE, WHOLE, Uploads
from api.doors import Doors
from api.farm import Farm
from api.feed import Feeds
from api.headers import SafeHeaders
from api.heads import Heads
from api.limits import BodyLimit
from api.openai.desk import Desk
from api.readiness import Probe
from api.routes import (
    archives,
    dashboard,
    events,
    exports,
    failures,
    health,
    images,
    jobs,
    manifests,
    models,
    openai_batches,
    openai_files,
    openai_images,
    openai_uploads,
    provenance,
    verify,
    webhooks,
)
from api.traced import Traced
from promptmill import __version__, errors, failpoints, garbage, telemetry, traces
from promptmill.settings import Settings

# Of any body that is neither of those below: a prompt of 32,000 characters, all of them escaped.
JSON_BYTES = 500_000
FORM_BYTES = 64_000_000
FORMS = re.compile("/v1/images/edits")
STREAMED = re.compile("/v1/(jobs|files|uploads/[^/]+/parts)")
WAITING = re.compile("/v1/images/(generations|edits)")
DRAIN_SECONDS = 5  # for requests that still run when the server is told to stop


def create_app(settings: Settings) -> FastAPI:
    """The API over what `settings` name; it connects when it starts. Raises
    `errors.SettingInvalid` for an open farm that others could reach, or for traces that cannot be
    sent."""
    settings.refuse_open_farm()
    app = FastAPI(
        title="promptmill",
        version=__version__,
        description="Prompts in, images in the bucket, nothing lost.",
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        separate_input_output_schemas=False,
        # What FastAPI tells by itself, where OTEL_* variables ask for it, holds paths and queries.
        telemetry={"auto_configure": False, "tracing": False, "metrics": False, "logs": False},
    )
    app.state.settings = settings
    app.state.stopping = lambda: False
    app.state.metrics = metrics.Metrics()
    app.state.traces = traces.configure("api", settings.otel_endpoint)
    api_errors.install(app)
    app.add_middleware(Heads)
    app.add_middleware(
        BodyLimit, limit=JSON_BYTES, streamed=STREAMED, forms=FORMS, of_form=FORM_BYTES
    )
    app.add_middleware(Doors, streamed=STREAMED, waiting=WAITING)
    app.add_middleware(api_errors.NoNul)
    app.add_middleware(api_errors.RequestId)
    app.add_middleware(metrics.Metered, metrics=app.state.metrics)
    if settings.otel_endpoint:
        app.add_middleware(Traced, traces=app.state.traces)
    app.add_middleware(SafeHeaders)
    for part in (
        jobs,
        images,
        archives,
        failures,
        events,
        exports,
        verify,
        webhooks,
        manifests,
        models,
        openai_batches,
        openai_files,
        openai_images,
        openai_uploads,
        provenance,
        health,
        dashboard,
    ):
        app.include_router(part.router)
    openapi.install(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    farm = Farm(app.state.settings, app.state.traces)
    app.state.farm = farm
    app.state.storage = Probe(farm.blobs.probe)
    app.state.feeds = Feeds(farm)
    app.state.feeds.stopping = app.state.stopping
    app.state.uploads = Uploads()
    app.state.whole = Uploads(WHOLE, OWN_WHOLE)
    app.state.desk = Desk(farm)
    app.state.desk.start()
    unwatch = metrics.watch(farm, app.state.metrics.registry)
    try:
        yield
    finally:
        unwatch()
        app.state.desk.close()
        await app.state.feeds.close()
        await app.state.storage.close()
        farm.close()
        app.state.traces.close()


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to host and port. Raises `errors.SettingInvalid` naming the setting."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            raise errors.SettingInvalid(
                f"port {port} of {host} is taken: stop what holds it, or set PROMPTMILL_PORT",
                param="PROMPTMILL_PORT",
            ) from exc
        raise errors.SettingInvalid(
            f"cannot listen on {host} port {port} ({exc.strerror or exc}): "
            "set PROMPTMILL_HOST and PROMPTMILL_PORT",
            param="PROMPTMILL_HOST",
        ) from exc


def serve(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT, then lets running requests end. Raises
    `errors.Error` when it cannot start."""
    telemetry.configure("api", settings.log_level)
    failpoints.arm(settings.failpoints)
    app = create_app(settings)
    with listen(settings.host, settings.port) as bound:
        with closing(Farm(settings)) as farm:
            farm.require()
        for number in (signal.SIGTERM, signal.SIGINT):
            # The server takes these over, and when it has drained raises them again for
            # whoever had them before: a drained server has simply ended.
            signal.signal(number, _drained)
        garbage.settle()
        server_of(app).run(sockets=[bound])


def _drained(*_: object) -> None:
    """The signal has been obeyed."""


def server_of(app: FastAPI) -> uvicorn.Server:
    """A server for `app`, whose event streams end when it is told to stop."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    server = uvicorn.Server(config)
    app.state.stopping = lambda: server.should_exit
    return server
