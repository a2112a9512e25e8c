"""Conversations are rendered and tokenised as by transformers, whatever their template has."""

import json
from pathlib import Path
from typing import Any

import jinja2
import pytest
import tokenizers
import transformers
from chat_templates import TEMPLATES
from scripted_llama import byte_tokenizer, write_script
from transformers.utils.chat_template_utils import render_jinja_template

from trivet.backends.api import ChatInput, InvalidRequest
from trivet.backends.llm.text.chat import ChatTemplate
from trivet.backends.llm.text.literal import Prompt
from trivet.backends.llm.text.tokenizer import Tokenizer
from trivet.backends.llm.text.tokenizer_files import TokenizerFiles, hub_tokenizer

SPECIAL = {"bos_token": "<s>", "eos_token": "<eos>"}
MARKS = ("<s>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_call>")
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "é <b> & 'quoted'",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "a": {}}},
        },
    }
]
DOCUMENTS = [{"title": "One", "text": "first"}, {"title": "Zwei", "text": "größer"}]
CALL = {
    "id": "c1",
    "type": "function",
    "function": {"name": "weather", "arguments": {"city": "Oslo"}},
}
MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": " Be brief. "},
    {"role": "user", "content": "What is the weather?\nIn Orléans 🙂"},
    {"role": "assistant", "content": "It is\n</think>\n\nfine", "reasoning_content": "Hm."},
    {"role": "user", "content": "And in Oslo?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": '{"sky": "blue"}', "tool_call_id": "c1"},
]
CASES = {
    "all": ChatInput(MESSAGES, TOOLS, arguments={"documents": DOCUMENTS}),
    "plain": ChatInput(MESSAGES[:4], None, arguments={"enable_thinking": False}),
    "no prompt": ChatInput(MESSAGES[:3], TOOLS, add_generation_prompt=False),
}


def tokenizer_json() -> str:
    made = byte_tokenizer()
    made.add_special_tokens([tokenizers.AddedToken(mark, special=True) for mark in MARKS])
    text: str = made.to_str()
    return text


def of_transformers(source: str, chat: ChatInput) -> str:
    given: dict[str, Any] = {**(chat.arguments or {}), **SPECIAL}
    tools: Any = chat.tools and list(chat.tools)
    messages: Any = list(chat.messages)
    rendered: Any = render_jinja_template(
        [messages],
        tools=tools,
        documents=given.pop("documents", None),
        chat_template=source,
        add_generation_prompt=chat.add_generation_prompt,
        **given,
    )
    text: str = rendered[0][0] if isinstance(rendered, tuple) else rendered[0]
    return text


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", TEMPLATES)
def test_template_is_rendered_and_tokenised_as_by_transformers(
    tmp_path: Path, name: str, case: str
) -> None:
    chat, source = CASES[case], TEMPLATES[name]
    if name == "recursive macro" and not chat.tools:
        pytest.skip("it needs tools")
    if "tools" not in source:  # ours are told of calls in texts of their own then
        messages, wishes = chat.messages[:4], chat.arguments
        chat = ChatInput(messages, None, chat.add_generation_prompt, arguments=wishes)
    template = ChatTemplate(source, SPECIAL)
    try:
        wanted = of_transformers(source, chat)
    except (TypeError, jinja2.TemplateError):
        assert case == "plain", "it renders where there are tools"
        with pytest.raises(InvalidRequest):
            template.render(chat)
        return
    rendered = template.render(chat)
    assert rendered == wanted
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer_json())
    theirs: Any = transformers.PreTrainedTokenizerFast(tokenizer_file=str(path))
    ours = Tokenizer.from_files(TokenizerFiles(path.read_text(), (256,), SPECIAL))
    ids = ours.encode(rendered, add_special_tokens=False)
    assert ids == theirs.encode(wanted, add_special_tokens=False)


def test_marks_that_a_client_writes_stay_text_in_escaped_json() -> None:
    source = "{{ tools | tojson(ensure_ascii=True) }}{{ messages[0].content }}"
    tools = [{"function": {"name": "<|im_start|>", "description": "é"}}]
    chat = ChatInput([{"role": "user", "content": "<|im_end|>"}], tools)
    rendered = ChatTemplate(source, SPECIAL, MARKS).render(chat)
    assert rendered == json.dumps(tools) + "<|im_end|>"
    assert isinstance(rendered, Prompt)
    assert len(rendered.cuts) == 2


@pytest.mark.parametrize("call", ["indent='x' * 99", "separators=('y' * 99, ':')"])
def test_json_is_not_blown_up(call: str) -> None:
    source = "{% for m in messages %}{{ m | tojson(" + call + ") }}{% endfor %}"
    with pytest.raises(InvalidRequest, match="between values"):
        ChatTemplate(source, SPECIAL).render(ChatInput(MESSAGES))


def test_fault_of_a_template_is_told_with_its_words() -> None:
    with pytest.raises(InvalidRequest, match="unexpected keyword argument 'nonsense'"):
        ChatTemplate("{{ messages | tojson(nonsense=1) }}", SPECIAL).render(ChatInput(MESSAGES))


NAMED = [
    {"name": "default", "template": "{{ messages[0].content }}"},
    {"name": "tool_use", "template": "<tool_call>{{ tools | length }}{{ messages[0].content }}"},
    {"name": "rag", "template": "{{ documents }}"},
]


def write_templates(folder: Path, where: str) -> None:
    """Several templates: as a list of the config, or in files."""
    given = {"chat_template": NAMED} if where == "config" else {}
    write_script(folder, tokenizer_config=given)
    if where == "files":
        (folder / "additional_chat_templates").mkdir()
        for each in NAMED:
            name, template = each["name"], each["template"]
            place = "chat_template" if name == "default" else f"additional_chat_templates/{name}"
            (folder / f"{place}.jinja").write_text(template)


@pytest.mark.parametrize("where", ["config", "files"])
@pytest.mark.parametrize("tools", [None, [], TOOLS])
def test_of_several_templates_the_one_for_tools_is_taken_with_tools(
    tmp_path: Path, where: str, tools: Any
) -> None:
    write_templates(tmp_path, where)
    theirs: Any = transformers.AutoTokenizer.from_pretrained(tmp_path)
    files = hub_tokenizer(tmp_path)
    template = ChatTemplate(files.chat_template, {}, tool_source=files.tool_template)
    messages = [{"role": "user", "content": "Hi"}]
    wanted = theirs.apply_chat_template(messages, tools=tools, tokenize=False)
    assert template.render(ChatInput(messages, tools)) == wanted
    assert template.tool_call_parser == "hermes"
