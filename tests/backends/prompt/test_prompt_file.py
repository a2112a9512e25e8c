"""What a prompt.toml may say, and what is refused with which words."""

from pathlib import Path

import pytest
from prompt_folders import DESK, write_prompt

from trivet.backends.api import ChatInput, InvalidConfig, InvalidRequest, ModelFiles
from trivet.backends.prompt.about import bases_of
from trivet.backends.prompt.conversation import with_prompt
from trivet.backends.prompt.prompt_file import read_prompt_file
from trivet.backends.prompt.templates import PromptTemplates
from trivet.backends.registry import choose_about
from trivet.protos.model_config_pb2 import ModelConfig


def templates(tmp_path: Path, text: str = DESK, **files: str) -> PromptTemplates:
    folder = write_prompt(tmp_path, "desk", text)
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_text(content)
    return PromptTemplates(read_prompt_file(ModelFiles(folder.parent, 1)))


def messages(made: ChatInput) -> list[tuple[str, str]]:
    return [(each["role"], each["content"]) for each in made.messages]


def asked(*texts: str, **arguments: object) -> ChatInput:
    return ChatInput([{"role": "user", "content": t} for t in texts], arguments=arguments)


def test_a_folder_with_the_file_is_a_prompt_of_its_base(tmp_path: Path) -> None:
    folder = write_prompt(tmp_path, "desk", base="qwen@stable")

    assert choose_about(ModelConfig(), ModelFiles(folder.parent, 1)).word == "prompt_template"
    assert bases_of(folder / "prompt.toml") == {"qwen@stable"}


def test_a_conversation_gets_system_prompt_and_template(tmp_path: Path) -> None:
    made = with_prompt(asked("Hello", "Hello?", company="ACME"), templates(tmp_path), "desk")

    assert messages(made) == [
        ("system", "You sort letters of ACME."),
        ("user", "Which desk gets this letter?\nHello"),
        ("user", "Which desk gets this letter?\nHello?"),
    ]
    assert made.arguments is None, "what is a variable is nothing for the base's template"


def test_a_client_s_own_system_prompt_comes_behind(tmp_path: Path) -> None:
    own = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hello"}]
    made = with_prompt(ChatInput(own, arguments={"seen": 1}), templates(tmp_path), "desk")

    assert messages(made)[0] == ("system", "You sort letters of Example Ltd.\n\nBe short.")
    assert made.arguments == {"seen": 1}, "what is no variable is for the base's template"


def test_few_shots_stand_before_it(tmp_path: Path) -> None:
    shots = '{"variables": {"letter": "A bill"}, "answer": "accounts"}\n\n'
    text = 'few_shot = "shots.jsonl"\n' + DESK
    made = with_prompt(asked("Hello"), templates(tmp_path, text, shots_jsonl=shots), "desk")

    assert messages(made)[1:3] == [
        ("user", "Which desk gets this letter?\nA bill"),
        ("assistant", "accounts"),
    ]


def test_a_variable_without_a_default_must_be_given(tmp_path: Path) -> None:
    text = DESK.replace('{ default = "Example Ltd" }', "{}").replace(
        "variables = { letter", 'variables = { company = "A", letter'
    )
    with pytest.raises(InvalidRequest, match="variable 'company' of prompt 'desk' is missing"):
        with_prompt(asked("Hello"), templates(tmp_path, text), "desk")


BROKEN = {
    "an unknown key": ("input =", "inputs =", "it has no key 'inputs'; did you mean 'input'?"),
    "no base": ('base = "BASE"', "", "it names no base"),
    "an undeclared variable": ("of {{ company }}", "of {{ firm }}", "'system' uses 'firm'"),
    "a variable that nothing uses": ("of {{ company }}", "", "variable 'company' is in no templ"),
    "a template without the text": ("{{ letter }}", "", "does not use 'letter'"),
    "a broken template": ("{{ letter }}", "{{ letter", "'template' is broken in line 2"),
    "an example without its variable": ("{ letter = ", "{ company = ", "'letter' is missing"),
    "an example that renders otherwise": ("?\\nWhere", "? Where", "example 1: the template rend"),
    "an unknown option": ("temperature", "temprature", "did you mean 'temperature'?"),
    "an option out of range": ("temperature = 0.0", "temperature = 9", "from 0 to 2, got 9"),
    "another table": ("[variables]", "[[variables]]", "'variables' is to be a table"),
    "no TOML": ("[variables]", "[variables", "it is no TOML"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_refused(what: str, tmp_path: Path) -> None:
    old, new, told = BROKEN[what]
    assert old in DESK
    with pytest.raises(InvalidConfig) as refused:
        templates(tmp_path, DESK.replace(old, new))

    assert refused.value.message.startswith("prompt.toml: ")
    assert told in refused.value.message


def test_a_template_that_loops_is_broken_off_at_load(tmp_path: Path) -> None:
    loop = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    text = DESK.replace("{{ letter }}", "{{ letter }}" + loop)
    with pytest.raises(InvalidConfig, match="example 1: template is not followed: it takes more"):
        templates(tmp_path, text)


@pytest.mark.parametrize("name", ["../../secret.json", "/etc/hostname"])
def test_files_of_others_are_not_read(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="points outside the folder"):
        templates(tmp_path, f'response_schema = "{name}"\n' + DESK)


def test_tools_and_a_schema_exclude_each_other(tmp_path: Path) -> None:
    text = 'tools = "t.json"\nresponse_schema = {type = "object"}\n' + DESK
    tool = '[{"type": "function", "function": {"name": "send"}}]'
    with pytest.raises(InvalidConfig, match="one or the other"):
        templates(tmp_path, text, t_json=tool)
