"""Which way a model writes calls, read from its chat template; and tools for templates without."""

from typing import Any

import pytest

from trivet.backends.api import ChatInput, InvalidConfig, ModelFiles
from trivet.backends.llm.settings import engine_settings
from trivet.backends.llm.text.chat import ChatTemplate
from trivet.backends.llm.text.tool_texts import with_written_tools
from trivet.protos.model_config_pb2 import ModelConfig

TOOL: dict[str, Any] = {"type": "function", "function": {"name": "f"}}
PLAIN = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"


@pytest.mark.parametrize(
    ("template", "style"),
    [
        ("{% if tools %}<tools>{{ tools | tojson }}</tools> <tool_call>{% endif %}", "hermes"),
        ("{% if tools %}<tool_call><function=f>{% endif %}", "qwen3_coder"),
        ("{% if tools is defined %}[AVAILABLE_TOOLS] [TOOL_CALLS]{% endif %}", "mistral"),
        (
            "{% if not tools is defined %}{% set tools = none %}{% endif %}"
            "{% if tools %}<|python_tag|>{% endif %}",
            "llama3_json",
        ),
        ("{% if tools %}Use JSON.{% endif %}", ""),
        (PLAIN, "hermes"),
    ],
)
def test_template_tells_how_calls_are_written(template: str, style: str) -> None:
    assert ChatTemplate(template, {}).tool_call_parser == style


def test_template_that_knows_tools_gets_them_as_they_are() -> None:
    template = ChatTemplate("{{ tools | tojson }}{{ messages | length }}", {})
    messages = [{"role": "user", "content": "a"}]
    assert template.render(ChatInput(messages, tools=[TOOL])) == (
        '[{"type": "function", "function": {"name": "f"}}]1'
    )


def test_template_without_tools_is_told_them_behind_the_system_message() -> None:
    template = ChatTemplate(PLAIN, {})
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "a"}]
    text = template.render(ChatInput(messages, tools=[TOOL]))
    assert text.startswith("[system] Be kind.\n\n# Tools\n")
    assert text.count("[system]") == 1
    assert '{"type": "function", "function": {"name": "f"}}\n</tools>' in text
    assert '{"name": <function-name>, "arguments": <args-json-object>}' in text
    assert template.render(ChatInput(messages)) == "[system] Be kind.\n[user] a\n"


def test_arguments_are_objects_to_some_templates_and_texts_to_others() -> None:
    call = {"function": {"name": "f", "arguments": {"a": True}}}
    messages = [{"role": "assistant", "content": "", "tool_calls": [call]}]
    for written in (
        "{{ '<' + c.function.arguments + '>' }}",
        "<{{ c.function.arguments }}>",
        "<{{ c.function.arguments | tojson }}>",
        "{{ '<' ~ c.function.arguments ~ '>' }}",
    ):
        source = f"{{{{ tools }}}}{{% for c in messages[0].tool_calls %}}{written}{{% endfor %}}"
        assert ChatTemplate(source, {}).render(ChatInput(messages)) == 'None<{"a": true}>'


def test_results_that_follow_each_other_are_one_turn() -> None:
    results = [{"role": "tool", "tool_call_id": "c", "content": text} for text in "ab"]
    user = {"role": "user", "content": "<tool_response>"}
    written = with_written_tools([*results, user, results[0]], [])
    assert [(message["role"], message["content"]) for message in written] == [
        ("user", "<tool_response>\na\n</tool_response>\n<tool_response>\nb\n</tool_response>"),
        ("user", "<tool_response>"),
        ("user", "<tool_response>\na\n</tool_response>"),
    ]


def test_config_may_say_how_calls_are_written(tmp_path: Any) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "model.gguf").touch()
    config = ModelConfig()
    config.parameters["tool_call_parser"].string_value = "mistral"
    files = ModelFiles(tmp_path / "m", 1)
    assert engine_settings(config, files).tool_call_parser == "mistral"
    config.parameters["tool_call_parser"].string_value = "magic"
    with pytest.raises(InvalidConfig, match="'magic'; it must be one of openai, deepseek_v32"):
        engine_settings(config, files)


@pytest.mark.parametrize(
    ("name", "given", "meant"),
    [
        ("tool_call_parser", "herme", "hermes"),
        ("tool_call_parser", "qwen3-coder", "qwen3_coder"),
        ("reasoning_parser", "deepseek-r1", "deepseek_r1"),
    ],
)
def test_a_name_that_is_wrong_by_little_is_told_the_right_one(
    tmp_path: Any, name: str, given: str, meant: str
) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    config = ModelConfig()
    config.parameters[name].string_value = given
    with pytest.raises(InvalidConfig, match=f"did you mean '{meant}'"):
        engine_settings(config, ModelFiles(tmp_path / "m", 1))
