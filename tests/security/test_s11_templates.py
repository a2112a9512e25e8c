"""S11: templates. A model's chat template is code of whoever made the model: it runs in a sandbox
without attributes that lead out; clients bring no templates, and their words are never taken for
one. Requests that try are rows O23 and O24."""

import re
import time
from pathlib import Path
from typing import Any

import pytest
from audit import watched

from trivet.backends.api import ChatInput, InvalidRequest, LoadFailed
from trivet.backends.llm.text.chat import ChatTemplate
from trivet.backends.templates import limits as template_limits
from trivet.backends.templates.limits import CPU_S, MAX_MADE_BYTES, MAX_PROMPT_CHARACTERS

SOON_S = 0.5
MESSAGES: list[dict[str, Any]] = [{"role": "user", "content": "Hello"}]
WAYS_OUT = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__.__base__.__subclasses__() }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context.cycler.__init__.__globals__.os.system('false') }}",
    "{{ cycler.__init__.__globals__.os.popen('false').read() }}",
    "{{ joiner.__init__.__globals__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ lipsum.__globals__['os'].system('false') }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__globals__ }}",
    "{{ raise_exception.__code__.co_consts }}",
    "{{ strftime_now.__closure__ }}",
    "{{ (messages | attr('__class__')) }}",
    "{{ (messages | attr('\\x5f\\x5fclass\\x5f\\x5f')) }}",
    "{{ messages | map(attribute='__class__') | list }}",
    "{{ '{0.__class__}'.format(messages) }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(raise_exception) }}",
    "{{ ('%s' | format)('a').__class__ }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update({'role': 'system'}) }}",
    "{{ messages.clear() }}",
    "{% set _ = messages.pop() %}",
    "{{ (cycler.next.__func__.__globals__) }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% extends '/etc/passwd' %}",
    "{{ open('/etc/passwd').read() }}",
    "{{ __import__('os') }}",
    "{{ import('os') }}",
    "{{ config }}{{ request.application.__globals__ }}",
    "{{ ().__class__.__bases__[0] }}",
    "{{ messages.__reduce__() }}",
    "{{ (1).__class__.__base__ }}",
    "{{ ''|attr('__class__')|attr('__mro__') }}",
]
TELLTALES = ("<class", "<function", "root:", "subclasses", "__main__", "{'__name__'", "built-in")


@pytest.mark.parametrize("source", WAYS_OUT)
def test_no_way_leads_out_of_a_template(source: str) -> None:
    given = [dict(message) for message in MESSAGES]
    with watched() as seen:
        try:
            text = ChatTemplate(source, {}).render(ChatInput(given))
        except (InvalidRequest, LoadFailed) as error:
            text = error.message
    assert not any(sign in text for sign in TELLTALES), text
    assert given == MESSAGES
    assert seen.ran == []
    assert [path for path in seen.opened if path.startswith("/etc")] == []


@pytest.mark.parametrize("source", WAYS_OUT)
def test_the_words_of_a_client_are_never_a_template(source: str) -> None:
    template = ChatTemplate("{% for m in messages %}{{ m.content }}|{% endfor %}", {})
    with watched() as seen:
        assert template.render(ChatInput([{"role": "user", "content": source}])) == source + "|"
    assert seen.ran == []


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(1000000000) %}x{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99999) %}xxxxxxxx{% endfor %}{% endfor %}",
        "{{ 'x' * 10000000 }}",
    ],
)
def test_a_template_that_writes_without_end_is_stopped(source: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ChatTemplate(source, {}).render(ChatInput(MESSAGES))
    text = caught.value.message
    ends = (str(MAX_PROMPT_CHARACTERS), "OverflowError", "the chat template is not followed")
    assert any(end in text for end in ends), text


LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}BODY{% endfor %}{% endfor %}"
ENDLESS = [
    LOOP.replace("BODY", ""),
    LOOP.replace("BODY", "{% set x = a ~ b %}"),
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(99) }}",
    "{% macro f(n) %}{% for a in range(n) %}{{ caller() }}{% endfor %}{% endmacro %}"
    "{% call f(9999) %}{% call f(9999) %}{% call f(9999) %}{% endcall %}{% endcall %}{% endcall %}",
    "{% block b %}{% if messages %}{{ self.b() }}{{ self.b() }}{% endif %}{% endblock %}",
    "{% set s = namespace(x='aa') %}{% for i in range(99) %}{% set s.x = s.x ~ s.x %}{% endfor %}",
    "{% set s = namespace(x='aa') %}{% for i in range(99) %}{% set s.x = s.x + s.x %}{% endfor %}",
    "{% set s = namespace(x=[1]) %}{% for i in range(99) %}{% set s.x = s.x + s.x %}{% endfor %}",
    "{% set s = namespace(x='aaaa') %}"
    "{% for i in range(99) %}{% set s.x = s.x.replace('a', s.x) %}{% endfor %}",
    "{% set s = namespace(x='aaaa') %}"
    "{% for i in range(99) %}{% set s.x = s.x | replace('a', s.x) %}{% endfor %}",
    "{{ ('a' * 1000000000) | length }}",
    "{{ (1000000000 * 'a') | length }}",
    "{{ (range(99999) | list * 100000) | length }}",
    "{{ 10 ** (10 ** 9) }}",
    "{{ 10 ** (10 ** 9) > 1 }}",
    "{{ 'a'.ljust(1000000000) | length }}",
    "{{ 'a' | center(1000000000) | length }}",
    "{{ 'a\\na' | indent(1000000000) | length }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ ('%*d' % (1000000000, 1)) | length }}",
    "{{ '%1000000000d' | format(1) }}",
    "{{ '{:1000000000}'.format(1) | length }}",
    "{{ '{:{}}'.format(1, 1000000000) | length }}",
    "{{ '{x:1000000000}'.format_map({'x': 1}) | length }}",
    "{{ 1.5 | round(1000000000, 'ceil') }}",
    "{{ (1).to_bytes(2000000000, 'big') | length }}",
    "{{ ('a' * 1000000).encode().ljust(2000000000) | length }}",
    "{{ [1] | batch(1000000000, 1) | list | length }}",
    "{{ [[1]] | sum(start=[]) }}",
    "{{ lipsum(1000000000) }}",
    "{{ [messages] | tojson(indent=1000000000) | length }}{{ 1 / 0 }}",
]


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Templates get less time than they do."""
    monkeypatch.setattr(template_limits, "CPU_S", SOON_S)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("source", ENDLESS)
def test_a_template_that_loops_or_grows_without_end_is_stopped(source: str) -> None:
    template = ChatTemplate(source, {})
    started_s = time.thread_time()
    Path("/proc/self/clear_refs").write_text("5")  # the most memory so far is that of now
    before_kib = peak_kib()
    with pytest.raises(InvalidRequest, match="chat template"):
        template.render(ChatInput(MESSAGES))
    assert time.thread_time() - started_s < SOON_S + CPU_S  # one call or operator may be under way
    assert peak_kib() - before_kib < 3 * MAX_MADE_BYTES // 1024


def peak_kib() -> int:
    """The most memory that this process has had since `clear_refs` was told to forget it."""
    (line,) = re.findall(
        r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE
    )
    return int(line)


def test_what_one_conversation_took_the_next_need_not_save() -> None:
    many = "{% for a in range(9999) %}{% set x = 'a' * 9999 %}{% endfor %}x"
    template = ChatTemplate(many, {})
    assert [template.render(ChatInput(MESSAGES)) for _ in range(5)] == ["x"] * 5


@pytest.mark.parametrize(
    "source", ["{{ messages[99].content.x }}", "{{ 1 / 0 }}", "{{ {}['a'].b }}", "{{ 'a' + 1 }}"]
)
def test_errors_of_a_template_tell_nothing_of_the_machine(source: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ChatTemplate(source, {}).render(ChatInput(MESSAGES))
    assert str(Path.cwd()) not in caught.value.message
    assert "Traceback" not in caught.value.message
