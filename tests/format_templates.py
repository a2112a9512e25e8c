"""Chat templates in the manner of public models, one for each format of calls and thoughts: what
they tell a model of tools, and how they write an assistant's answer."""

# ruff: noqa: E501, RUF001  # templates are read as they stand in files

_FRAME = (
    "{%- if tools %}[tools] TOLD {{ tools | tojson }}\n{% endif %}"
    "{%- for m in messages %}{% if m.role == 'user' %}[user] {{ m.content }}\n"
    "{%- elif m.role == 'tool' %}[tool] {{ m.content }}\n"
    "{%- else %}[assistant]{{ THOUGHTS }}{{ m.content }}CALLS[end]\n{% endif %}{% endfor %}"
    "{%- if add_generation_prompt %}[assistant]{% endif %}"
)
_EACH = "{% for c in m.tool_calls or [] %}{% set f = c.function %}CALL{% endfor %}"
_JSON = '{{ \'{"name": "\' ~ f.name ~ \'", "arguments": \' ~ (f.arguments | tojson) ~ "}" }}'
_LISTED = (
    "{% if m.tool_calls %}BEFORE[{% for c in m.tool_calls %}{% set f = c.function %}"
    "{{ {'name': f.name, 'arguments': f.arguments} | tojson }}{{ ', ' if not loop.last }}"
    "{% endfor %}]BEHIND{% endif %}"
)
_PYTHON = (
    "{{ f.name }}({% for k, v in f.arguments.items() %}{{ k }}={{ v if v is boolean or v is none else v | tojson }}"
    "{{ ', ' if not loop.last }}{% endfor %})"
)
_PYTHON_LIST = (
    "{% if m.tool_calls %}BEFORE[{% for c in m.tool_calls %}{% set f = c.function %}"
    + _PYTHON
    + "{{ ', ' if not loop.last }}{% endfor %}]BEHIND{% endif %}"
)
# As Qwen3-Coder's: what is neither a mapping nor a list is written as Python writes it.
_AS_PYTHON = (
    "{{ v | tojson if v is mapping or (v is sequence and v is not string) else v | string }}"
)
_AS_JSON = "{{ v if v is string else v | tojson }}"
_GEMMA_VALUE = (
    "{% macro value(v) %}{% if v is string %}QUOTE{{ v }}QUOTE{% elif v is boolean %}{{ 'true' if v else 'false' }}"
    "{% elif v is mapping %}{ {%- for k, w in v | dictsort %}{{ k }}:{{ value(w) }}{{ ',' if not loop.last }}{% endfor -%} }"
    "{% elif v is sequence %}[{% for w in v %}{{ value(w) }}{{ ',' if not loop.last }}{% endfor %}]"
    "{% else %}{{ v }}{% endif %}{% endmacro %}"
)
_GEMMA = (
    "OPENcall:{{ f.name }}{ {%- for k, v in f.arguments | dictsort %}{{ k }}:{{ value(v) }}"
    "{{ ',' if not loop.last }}{% endfor -%} }CLOSE"
)


def _template(told: str, calls: str, thoughts: str = "''") -> str:
    return _FRAME.replace("TOLD", told).replace("CALLS", calls).replace("THOUGHTS", thoughts)


def _each(told: str, call: str) -> str:
    return _template(told, _EACH.replace("CALL", call))


def _listed(told: str, before: str, behind: str = "") -> str:
    return _template(told, _LISTED.replace("BEFORE", before).replace("BEHIND", behind))


def _python(told: str, before: str = "", behind: str = "") -> str:
    return _template(told, _PYTHON_LIST.replace("BEFORE", before).replace("BEHIND", behind))


def _around(told: str, before: str, call: str, behind: str) -> str:
    each = _EACH.replace("CALL", call)
    return _template(told, f"{{% if m.tool_calls %}}{before}{each}{behind}{{% endif %}}")


def _markup(before: str, key: str, behind_key: str, value: str, behind: str, end: str) -> str:
    arguments = f"{{% for k, v in f.arguments.items() %}}{key}{{{{ k }}}}{behind_key}{value}{behind}{{% endfor %}}"
    return f"{before}{arguments}{end}"


def _gemma(opening: str, closing: str, quote: str) -> str:
    call = _GEMMA.replace("OPEN", opening).replace("CLOSE", closing)
    return _GEMMA_VALUE.replace("QUOTE", quote) + _each(f"{opening}call:f{{}}", call)


# Line breaks of templates stand in texts, for a template may trim those behind its blocks.
TOOL_TEMPLATES: dict[str, str] = {
    "hermes": _each(
        "<tool_call>",
        "{{ '<tool_call>\n' }}" + _JSON + "{{ '\n</tool_call>' }}{{ '\n' if not loop.last }}",
    ),
    "mistral": _listed("[AVAILABLE_TOOLS]", "[TOOL_CALLS] "),
    "mistral with arguments": _each(
        "[AVAILABLE_TOOLS]", "[TOOL_CALLS]{{ f.name }}[ARGS]{{ f.arguments | tojson }}"
    ),
    "llama3_json": _each(
        "<|python_tag|>",
        "{{ '{\"name\": \"' ~ f.name ~ '\", \"parameters\": ' ~ (f.arguments | tojson) ~ '}' }}{{ '; ' if not loop.last }}",
    ),
    "granite": _listed("<|start_of_role|> <|tool_call|>", "<|tool_call|>"),
    "granite-20b-fc": _each(
        "<function_call>", "<function_call> " + _JSON + "{{ '\n' if not loop.last }}"
    ),
    "phi4_mini_json": _listed("<|tool|><|/tool|>", "<|tool_call|>", "<|/tool_call|>"),
    "phi4_mini_json with functools": _listed("functools[", "functools"),
    "jamba": _listed("<tool_calls>", "{{ '<tool_calls>\n' }}", "{{ '\n</tool_calls>' }}"),
    "longcat": _each(
        "<longcat_tool_call>",
        "{{ '<longcat_tool_call>\n' }}"
        + _JSON
        + "{{ '\n</longcat_tool_call>' }}{{ '\n' if not loop.last }}",
    ),
    "internlm": _each(
        "<|plugin|>",
        "{{ '<|action_start|><|plugin|>\n{\"name\": \"' ~ f.name ~ '\", \"parameters\": ' ~ (f.arguments | tojson) ~ '}\n<|action_end|>' }}{{ '\n' if not loop.last }}",
    ),
    # DeepSeek's templates add arguments to texts, as if they were JSON already.
    "deepseek_v3": _around(
        "```json <｜tool▁call▁begin｜>",
        "<｜tool▁calls▁begin｜>",
        "{{ '<｜tool▁call▁begin｜>function<｜tool▁sep｜>' + f.name + '\n```json\n' + f.arguments + '\n```<｜tool▁call▁end｜>' }}{{ '\n' if not loop.last }}",
        "<｜tool▁calls▁end｜>",
    ),
    "deepseek_v31": _around(
        "<｜tool▁call▁begin｜>",
        "<｜tool▁calls▁begin｜>",
        "{{ '<｜tool▁call▁begin｜>' + f.name + '<｜tool▁sep｜>' + f.arguments + '<｜tool▁call▁end｜>' }}",
        "<｜tool▁calls▁end｜>",
    ),
    "deepseek_v32": _around(
        "<｜DSML｜function_calls>",
        "{{ '<｜DSML｜function_calls>\n' }}",
        _markup(
            "{{ '<｜DSML｜invoke name=\"' ~ f.name ~ '\">\n' }}",
            '<｜DSML｜parameter name="',
            "\" string=\"{{ 'true' if v is string else 'false' }}\">",
            _AS_JSON,
            "{{ '</｜DSML｜parameter>\n' }}",
            "{{ '</｜DSML｜invoke>\n' }}",
        ),
        "</｜DSML｜function_calls>",
    ),
    "kimi_k2": _around(
        "<|tool_call_begin|>",
        "<|tool_calls_section_begin|>",
        "<|tool_call_begin|>functions.{{ f.name }}:{{ loop.index0 }}<|tool_call_argument_begin|>{{ f.arguments | tojson }}<|tool_call_end|>",
        "<|tool_calls_section_end|>",
    ),
    "qwen3_coder": _each(
        "<tool_call><function=f>",
        _markup(
            "{{ '<tool_call>\n<function=' ~ f.name ~ '>\n' }}",
            "<parameter=",
            "{{ '>\n' }}",
            _AS_PYTHON,
            "{{ '\n</parameter>\n' }}",
            "{{ '</function>\n</tool_call>' }}{{ '\n' if not loop.last }}",
        ),
    ),
    "seed_oss": _each(
        "<seed:tool_call>",
        _markup(
            "{{ '<seed:tool_call>\n<function=' ~ f.name ~ '>\n' }}",
            "<parameter=",
            ">",
            "{{ v | string }}",
            "{{ '</parameter>\n' }}",
            "{{ '</function>\n</seed:tool_call>' }}{{ '\n' if not loop.last }}",
        ),
    ),
    "minimax_m2": _around(
        "<minimax:tool_call>",
        "{{ '<minimax:tool_call>\n' }}",
        _markup(
            "{{ '<invoke name=\"' ~ f.name ~ '\">\n' }}",
            '<parameter name="',
            '">',
            _AS_JSON,
            "{{ '</parameter>\n' }}",
            "{{ '</invoke>\n' }}",
        ),
        "</minimax:tool_call>",
    ),
    "glm45": _each(
        "<arg_key>",
        _markup(
            "{{ '<tool_call>' ~ f.name ~ '\n' }}",
            "<arg_key>",
            "{{ '</arg_key>\n<arg_value>' }}",
            _AS_JSON,
            "{{ '</arg_value>\n' }}",
            "{{ '</tool_call>' }}{{ '\n' if not loop.last }}",
        ),
    ),
    "pythonic": _python("[func_name1(a=1)]"),
    "llama4_pythonic": _python(
        "[func_name1(a=1)] <|header_start|>", "<|python_start|>", "<|python_end|>"
    ),
    "lfm2": _python("<|tool_call_start|>", "<|tool_call_start|>", "<|tool_call_end|>"),
    "olmo3": _around(
        "<function_calls>",
        "<function_calls>",
        _PYTHON + "{{ '\n' if not loop.last }}",
        "</function_calls>",
    ),
    "tool_code": _around(
        "```tool_code",
        "{{ '```tool_code\n' }}",
        _PYTHON + "{{ '\n' if not loop.last }}",
        "{{ '\n```' }}",
    ),
    "cohere_command3": _around(
        "<|START_ACTION|>",
        "{{ '<|START_ACTION|>[\n    ' }}",
        "{{ '{\"tool_call_id\": \"' ~ loop.index0 ~ '\", \"tool_name\": \"' ~ f.name ~ '\", \"parameters\": ' ~ (f.arguments | tojson) ~ '}' }}{{ ',\n    ' if not loop.last }}",
        "{{ '\n]<|END_ACTION|>' }}",
    ),
    "command_r": _around(
        '"tool_name": title of the tool',
        "{{ 'Action: ```json\n[\n    ' }}",
        "{{ '{\n        \"tool_name\": \"' ~ f.name ~ '\",\n        \"parameters\": ' ~ (f.arguments | tojson) ~ '\n    }' }}{{ ',\n    ' if not loop.last }}",
        "{{ '\n]\n```' }}",
    ),
    "functiongemma": _gemma("<start_function_call>", "<end_function_call>", "<escape>"),
    "gemma4": _gemma("<|tool_call>", "<tool_call|>", '<|"|>'),
}
"""By format; where one has several spellings, a word more says which."""

HARMONY = """{{- '<|start|>system<|message|>Valid channels: analysis, commentary, final.<|end|>' }}
{%- if tools %}{{ '<|start|>developer<|message|>namespace functions ' ~ (tools | tojson) ~ '<|end|>' }}{% endif %}
{%- for m in messages %}
{%- if m.role == 'assistant' and m.tool_calls %}
    {%- set later = namespace(has_final=false) %}
    {%- for other in messages[loop.index:] %}{% if other.role == 'assistant' and not other.tool_calls %}{% set later.has_final = true %}{% endif %}{% endfor %}
    {%- if m.thinking and not later.has_final %}{{ '<|start|>assistant<|channel|>analysis<|message|>' ~ m.thinking ~ '<|end|>' }}{% endif %}
    {%- set call = m.tool_calls[0].function %}
    {{- '<|start|>assistant to=functions.' ~ call.name ~ '<|channel|>commentary json<|message|>' ~ (call.arguments | tojson) ~ '<|call|>' }}
{%- elif m.role == 'assistant' %}
    {{- '<|start|>assistant<|channel|>final<|message|>' ~ m.content ~ '<|end|>' }}
{%- elif m.role == 'tool' %}
    {{- '<|start|>functions.f to=assistant<|channel|>commentary<|message|>' ~ (m.content | tojson) ~ '<|end|>' }}
{%- else %}
    {{- '<|start|>' ~ m.role ~ '<|message|>' ~ m.content ~ '<|end|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"""

THOUGHT_TEMPLATES: dict[str, str] = {
    name: _template("<tool_call>", "", f"'{opening}' ~ m.reasoning_content ~ '{closing}'")
    for name, opening, closing in (
        ("think", "<think>", "</think>"),
        ("mistral", "[THINK]", "[/THINK]"),
        ("seed_oss", "<seed:think>", "</seed:think>"),
        ("gemma4", "<|channel>thought\n", "<channel|>"),
        ("cohere_command3", "<|START_THINKING|>", "<|END_THINKING|>"),
        ("granite", "Here is my thought process:", "Here is my response:"),
    )
}
"""By format."""
