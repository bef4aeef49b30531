"""The command line: the group of commands and how their failures are told. A command is
imported when it is called, and imports no server's library before it runs."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

import click

from promptmill import __version__, errors
from promptmill.cli import output

USAGE, INTERRUPTED = 2, 130


# name → module and attribute
COMMANDS: Mapping[str, str] = {
    "submit": "submit:submit",
    "jobs": "jobs:jobs_",
    "show": "jobs:show",
    "watch": "jobs:watch",
    "cancel": "jobs:cancel",
    "pause": "jobs:pause",
    "resume": "jobs:resume",
    "retry": "jobs:retry",
    "delete": "jobs:delete",
    "images": "images:images_",
    "download": "images:download",
    "export": "images:export",
    "verify": "images:verify",
    "manifest": "provenance:manifest",
    "verify-manifest": "provenance:verify_manifest",
    "provenance": "provenance:provenance",
    "webhooks": "provenance:webhooks",
    "up": "farm:up",
    "models": "farm:models",
    "workers": "farm:workers",
    "drain": "farm:drain",
    "doctor": "farm:doctor",
    "api": "serve:api",
    "worker": "serve:worker",
    "control": "serve:control",
    "migrate": "serve:migrate",
    "keys": "serve:keys",
    "completion": "completion:completion",
}


class Commands(click.Group):
    """Imports a command when it is asked for: a server needs nothing of the client's."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name].partition(":")
        found: click.Command = getattr(
            importlib.import_module(f"promptmill.cli.{module}"), attribute
        )
        return found


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """Prompts in, pictures out: a farm that renders batches and loses nothing.

    The farm is found by PROMPTMILL_URL (default http://127.0.0.1:8000) and
    PROMPTMILL_API_KEY. Exit codes: 0 done, 1 the job or request failed, 2 usage.
    """


def run(args: Sequence[str]) -> int:
    """Runs one command line and returns its exit code; failures are one line on stderr."""
    try:
        code = cli.main(list(args), prog_name="promptmill", standalone_mode=False)
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except errors.Error as exc:
        return fail(describe(exc))
    except BrokenPipeError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as exc:
        place = f"{exc.filename}: " if exc.filename else ""
        return fail(f"{place}{exc.strerror or exc}")
    return code if isinstance(code, int) else 0


def describe(error: errors.Error) -> str:
    """One line in the words of this command line; the field at fault is named where the
    message does not."""
    text = output.as_options(" ".join(str(error).split()))
    known = not error.param or re.search(rf"\b{re.escape(error.param)}\b", text)
    return text if known else f"{text} (field {error.param})"


def fail(message: str) -> int:
    click.echo(f"promptmill: {message}", err=True)
    return 1


def main() -> None:
    sys.exit(run(sys.argv[1:]))
