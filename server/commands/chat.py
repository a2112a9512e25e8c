"""`trivet chat`: talks to a language model of a running server, in a terminal or through a pipe."""

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
from rich.console import Console

from trivet.server.commands.client import Client, Command, api_key_option
from trivet.server.commands.conversation import Conversation

_HELP = """\
/system TEXT      what the model is told before everything (without TEXT: nothing)
/set NAME VALUE   temperature (0.7 unless set), top_p, top_k, max_tokens, seed, penalties
/image FILE       goes with the next message
/clear            forgets what was said
/bye              ends, as Ctrl-D does; Ctrl-C breaks an answer off"""


def conversation_options(command: Command) -> Command:
    """`--system` and `--set`, of every verb that talks."""
    system = click.option("--system", default="", help="what the model is told before everything")
    given = click.option(
        "--set", "given", multiple=True, metavar="NAME=VALUE", help="such as max_tokens=100"
    )
    return system(given(command))


@click.command()
@click.argument("model", default="")
@click.option("--url", default="http://127.0.0.1:8000", show_default=True, help="HTTP address")
@conversation_options
@api_key_option
def chat(model: str, url: str, system: str, given: tuple[str, ...], api_key: str) -> None:
    """Talk to a language model of a running server: MODEL, or the only one there is. What comes
    through a pipe is one prompt, and the answer is all that is printed."""
    client = Client(url, api_key)
    converse(begun(client, model, system, given))


def begun(client: Client, model: str, system: str, given: tuple[str, ...]) -> Conversation:
    """A conversation as the options of `conversation_options` want it."""
    conversation = Conversation(client, model or only_model(client), system)
    for each in given:
        name, _, value = each.partition("=")
        conversation.set(name, value)
    return conversation


def only_model(client: Client) -> str:
    """Raises UsageError where there are several or none."""
    names = language_models(client)
    if len(names) != 1:
        there = ", ".join(names) or "none"
        raise click.UsageError(f"say which language model; the server has {there}")
    return names[0]


def language_models(client: Client) -> list[str]:
    """A server's models that generate: the list has those that only read texts, too."""
    there = client.call("GET", "/v1/models")["data"]
    return [str(each["id"]) for each in there if "sampling_defaults" in each]


def converse(conversation: Conversation) -> None:
    """In a terminal until its user leaves; else one answer to standard input."""
    if sys.stdin.isatty():
        console = Console(highlight=False)
        console.print(f"[dim]{conversation.model}: /help says what else there is[/dim]")
        talk(conversation, _typed(console), console)
        return
    prompt = sys.stdin.read().strip()
    if not prompt:
        raise click.UsageError("standard input is empty: pipe a prompt in")
    for piece in conversation.say(prompt):
        click.echo(piece, nl=False)
    click.echo()


def talk(conversation: Conversation, lines: Iterable[str], console: Console) -> None:
    """Answers each line, or does what it says, until one says goodbye."""
    for line in lines:
        if line == "/bye":
            return
        try:
            if line.startswith("/"):
                console.print(_done(conversation, line), style="dim", markup=False)
            else:
                _answer(conversation, line, console)
        except click.ClickException as error:
            console.print(error.format_message(), style="red", markup=False)


def _typed(console: Console) -> Iterator[str]:
    import readline  # noqa: F401 - lines can be edited, and the ones before come back

    while True:
        try:
            line = console.input("[bold]> [/bold]").strip()
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
        if line:
            yield line


def _answer(conversation: Conversation, text: str, console: Console) -> None:
    pieces = conversation.say(text)
    try:
        for piece in pieces:
            console.out(piece, end="", highlight=False)
    except KeyboardInterrupt:
        pieces.close()  # type: ignore[attr-defined]  # a generator's
        console.print(" [dim](broken off)[/dim]")
        return
    console.print(f"\n[dim]{conversation.last}[/dim]")


def _done(conversation: Conversation, line: str) -> str:
    """Does what a line says; what there is to say of it."""
    verb, _, rest = line[1:].partition(" ")
    rest = rest.strip()
    if verb == "system":
        conversation.system = rest
        return "told from now on" if rest else "nothing is told before"
    if verb == "set":
        name, _, value = rest.partition(" ")
        conversation.set(name, value.strip())
        return f"{name} is {conversation.settings[name]}"
    if verb == "image":
        path = Path(rest).expanduser()
        if not path.is_file() or not os.access(path, os.R_OK):
            raise click.ClickException(f"there is no file {path}, or it cannot be read")
        conversation.images.append(path)
        return f"{path.name} goes with the next message"
    if verb == "clear":
        conversation.clear()
        return "forgotten"
    if verb == "help":
        return _HELP
    raise click.ClickException(f"/{verb} is not known; /help says what is")
