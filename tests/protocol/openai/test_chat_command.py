"""`trivet chat` with a real server: through a pipe, and line by line as in a terminal."""

import io
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console
from serving import RunningServer

from trivet.server.cli import main
from trivet.server.commands.chat import talk
from trivet.server.commands.client import Client
from trivet.server.commands.conversation import Conversation
from trivet.server.commands.exits import NOT_THERE

MODEL = "small"


def chat(server: RunningServer, *arguments: str, prompt: str = "hello") -> Result:
    command = ["chat", *arguments, "--url", f"http://{server.http}", "--set", "max_tokens=4"]
    return CliRunner().invoke(main, command, input=prompt)


def conversation(server: RunningServer) -> Conversation:
    made = Conversation(Client(f"http://{server.http}"), MODEL)
    made.settings |= {"max_tokens": 4, "temperature": 0.0, "seed": 1}
    return made


def said(conversation: Conversation, *lines: str) -> str:
    console = Console(file=io.StringIO(), width=200)
    talk(conversation, lines, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_prompt_through_a_pipe_is_answered_and_nothing_else_is_printed(
    server: RunningServer,
) -> None:
    result = chat(server, MODEL)
    assert result.exit_code == 0, result.output
    assert result.output.strip()
    assert "tokens" not in result.output


def test_the_only_language_model_needs_no_name(server: RunningServer) -> None:
    assert chat(server).exit_code == 0


def test_what_cannot_be_is_told(server: RunningServer) -> None:
    assert "standard input is empty" in chat(server, MODEL, prompt=" \n").output
    unknown = chat(server, "nobody")
    assert unknown.exit_code == NOT_THERE
    assert "nobody" in unknown.output
    assert "'colour' is no setting" in chat(server, MODEL, "--set", "colour=red").output


def test_each_answer_is_part_of_what_is_asked_next(server: RunningServer) -> None:
    talked = conversation(server)
    out = said(talked, "one", "two")
    assert [each["role"] for each in talked.messages] == ["user", "assistant"] * 2
    assert out.count("tokens, ") == 2
    first = talked.messages[1]["content"]
    said(talked, "/clear", "one")
    assert len(talked.messages) == 2
    assert talked.messages[1]["content"] == first


def test_lines_set_what_is_asked(server: RunningServer, tmp_path: Path) -> None:
    talked = conversation(server)
    picture = tmp_path / "cat.png"
    picture.write_bytes(b"png")
    out = said(
        talked, "/system be brief", "/set top_p 0.5", "/set top_p x", "/set colour red",
        f"/image {picture}", "/image nowhere", "/what", "/help", "/bye", "never said",
    )  # fmt: skip
    assert talked.system == "be brief"
    assert talked.settings["top_p"] == 0.5
    assert talked.images == [picture]
    assert talked.messages == []
    for text in ("is a number, not 'x'", "'colour' is no setting", "no file nowhere", "/what is"):
        assert text in out


def test_what_is_refused_leaves_the_conversation_as_it_was(server: RunningServer) -> None:
    talked = conversation(server)
    said(talked, "one")
    talked.settings["max_tokens"] = -1
    assert "max_tokens" in said(talked, "two")
    assert len(talked.messages) == 2


def test_an_answer_that_is_broken_off_is_kept_as_far_as_it_came(server: RunningServer) -> None:
    talked = conversation(server)
    talked.settings["max_tokens"] = 50
    pieces = talked.say("count")
    first = next(pieces)
    talked.images.append(Path("went-with-it.png"))
    pieces.close()  # type: ignore[attr-defined]  # a generator's
    assert talked.messages[-1] == {"role": "assistant", "content": first}
    assert talked.images == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_of_each_shell(shell: str) -> None:
    result = CliRunner().invoke(main, ["completion", shell])
    assert result.exit_code == 0
    assert "_TRIVET_COMPLETE" in result.output
