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
        ("{% if tools %}<tool_call><function=f>{% endif %}", ""),
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
    with pytest.raises(InvalidConfig, match="'magic'; it must be one of hermes, llama3_json"):
        engine_settings(config, files)
