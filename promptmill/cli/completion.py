"""`promptmill completion`: what makes a shell complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

VARIABLE = "_PROMPTMILL_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that teaches a shell to complete: `eval "$(promptmill completion bash)"`."""
    kind = get_completion_class(shell)
    if kind is not None:
        root = context.find_root()
        click.echo(kind(root.command, {}, root.info_name or "promptmill", VARIABLE).source())
