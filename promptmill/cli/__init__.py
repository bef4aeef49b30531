"""The command line: the group of commands and how their failures are told. Imports no
server's library: a command that needs one imports it when it runs."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress

import click

from promptmill import __version__, errors
from promptmill.cli import completion, farm, images, jobs, output, provenance, serve, submit

USAGE, INTERRUPTED = 2, 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """Prompts in, pictures out: a farm that renders batches and loses nothing.

    The farm is found by PROMPTMILL_URL (default http://127.0.0.1:8000) and
    PROMPTMILL_API_KEY. Exit codes: 0 done, 1 the job or request failed, 2 usage.
    """


for command in (
    *submit.COMMANDS,
    *jobs.COMMANDS,
    *images.COMMANDS,
    *provenance.COMMANDS,
    *farm.COMMANDS,
):
    cli.add_command(command)
for command in (*serve.COMMANDS, *completion.COMMANDS):
    cli.add_command(command)


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
