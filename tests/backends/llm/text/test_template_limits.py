"""What ordinary templates do is not limited, and is what Jinja gives without limits."""

import jinja2
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from trivet.backends.api import ChatInput
from trivet.backends.llm.text.chat import ChatTemplate

MESSAGES = [
    {"role": "user", "content": "How many is 3 times 4?"},
    {"role": "assistant", "content": "<think>a b</think> 12\n"},
]
TEMPLATES = [
    "{% for m in messages %}{{ '<' ~ m.role ~ '>' + m['content'] | trim + '\n' }}{% endfor %}",
    "{{ messages[1].content.split('</think>')[-1].lstrip('\n') }}",
    "{{ messages | length * 2 }}{{ 'ab' * 3 }}{{ 2 ** 10 }}{{ 7 % 4 }}{{ '%s-%03d' % ('x', 7) }}",
    "{% set ns = namespace(n=0) %}{% for m in messages[::-1] %}{% set ns.n = ns.n + loop.index %}"
    "{% endfor %}{{ ns.n }}",
    "{% macro say(text, n=2) %}{{ text }}{{ n }}{% endmacro %}{{ say('a') }}{{ say('b', n=3) }}",
    "{% macro twice() %}{{ caller() }}{{ caller() }}{% endmacro %}{% call twice() %}x{% endcall %}",
    "{{ messages | map(attribute='role') | join(', ') | upper | replace('U', 'V') | indent(4) }}",
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}",
    "{{ 'a,b'.replace(',', '; ').ljust(9) ~ '{:>4}'.format(1700000000) }}{{ 10 ** 20 }}",
    "{{ [1700000000, 2] | sum }}{{ 1.256 | round(2) }}{{ 'c' | center(9) }}",
    "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.role }}{% endfor %}",
    "{% block head %}{{ messages[0].role }}{% endblock %}",
]


@pytest.mark.parametrize("source", TEMPLATES)
def test_ordinary_templates_give_what_they_give_without_limits(source: str) -> None:
    plain = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    wanted = plain.from_string(source).render(messages=MESSAGES)
    assert ChatTemplate(source, {}).render(ChatInput(MESSAGES)) == wanted


def test_marks_for_trainers_change_nothing() -> None:
    source = "{% for m in messages %}{% generation %}{{ m.role }}{% endgeneration %}|{% endfor %}"
    assert ChatTemplate(source, {}).render(ChatInput(MESSAGES)) == "user|assistant|"
    with pytest.raises(jinja2.TemplateSyntaxError):
        jinja2.Environment().from_string(source)
