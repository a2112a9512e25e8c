"""`trivet completion`: what a shell needs to complete verbs and flags."""

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what makes a shell complete verbs and flags: `source <(trivet completion bash)`."""
    kind = get_completion_class(shell)
    if kind is None:
        raise click.ClickException(f"click has no completion for {shell}")
    command = context.find_root().command
    click.echo(kind(command, {}, "trivet", "_TRIVET_COMPLETE").source())
