"""The client that commands talk through: it waits for a farm that is being started here."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import urlsplit

import click

from promptmill import datafolder, errors, settings
from promptmill.client import Client


def farm() -> Client:
    """A client of the farm that PROMPTMILL_URL names. While a `promptmill up` that has the
    data folder of this place has not come so far that it answers, requests wait for it."""
    told = False

    def starting(url: str) -> bool:
        nonlocal told
        if not settings.is_loopback(urlsplit(url).hostname or ""):
            return False
        with suppress(errors.SettingInvalid):
            if not datafolder.is_starting(settings.read().data_dir, url):
                return False
            if not told:
                click.echo(f"waiting for `promptmill up` to answer at {url}", err=True)
            told = True
            return True
        return False

    return Client(starting=starting)
