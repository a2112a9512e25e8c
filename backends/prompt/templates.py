"""System prompt and template of a version, compiled: values of variables to texts."""

import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jinja2
import jinja2.meta

from trivet.backends.api import InvalidConfig, InvalidRequest
from trivet.backends.prompt.about import PROMPT_FILE
from trivet.backends.prompt.prompt_file import PromptFile, Value, Values
from trivet.backends.templates.limits import (
    MAX_PROMPT_CHARACTERS,
    BoundedEnvironment,
    TemplateLimit,
)

_FAULTS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What expressions of a template raise."""
_MAX_FAULT_CHARACTERS = 200


class PromptTemplates:
    """What turns a client's text into a conversation. Used from any thread."""

    def __init__(self, file: PromptFile) -> None:
        """Raises InvalidConfig for templates that are broken, that use what is no variable, or that
        do not render the examples and the few shots."""
        self.file = file
        self._environment = environment = BoundedEnvironment()
        environment.undefined = jinja2.StrictUndefined
        environment.filters["tojson"] = functools.partial(json.dumps, ensure_ascii=False)
        self._system = self._compiled("system", file.system)
        self._user = self._compiled("template", file.template)
        self._check_variables()
        self._check_examples()

    @property
    def required(self) -> list[str]:
        """The variables that a client must give, besides its text."""
        variables = self.file.variables.items()
        return [name for name, usual in variables if usual is None and name != self.file.input]

    def system(self, given: Values) -> str:
        """Raises InvalidRequest."""
        return self._text("system", self._system, given)

    def user(self, text: str, given: Values) -> str:
        """What stands for a text of the user's. Raises InvalidRequest."""
        if self._user is None:
            return text
        return self._text("template", self._user, {**given, self.file.input: text})

    def check_given(self, given: Mapping[str, Any], name: str) -> None:
        """Whether a client has given what it must. Raises InvalidRequest."""
        for variable in self.required:
            if variable not in given:
                raise InvalidRequest(
                    f"variable '{variable}' of prompt '{name}' is missing; chats give it in "
                    f"chat_template_kwargs, tensors as input '{variable}'"
                )
        for variable, value in given.items():
            if variable in self.file.variables and not isinstance(value, Value):
                raise InvalidRequest(
                    f"variable '{variable}' of prompt '{name}' must be a text or a number"
                )

    def _text(self, what: str, template: jinja2.Template | None, given: Values) -> str:
        if template is None:
            return ""
        usual = {name: each for name, each in self.file.variables.items() if each is not None}
        try:
            self._environment.begin()
            return "".join(_bounded(template.generate({**usual, **given})))
        except (TemplateLimit, MemoryError) as error:
            raise InvalidRequest(f"{what} is not followed: {error or 'out of memory'}") from None
        except jinja2.UndefinedError as error:
            raise InvalidRequest(f"{what} cannot be written: {error.message}") from None
        except (jinja2.TemplateError, *_FAULTS) as error:
            told = f"{type(error).__name__}: {str(error)[:_MAX_FAULT_CHARACTERS]}"
            raise InvalidRequest(f"{what} cannot be written: {told}") from None

    # -- checks at load ------------------------------------------------------------------------

    def _compiled(self, what: str, source: str) -> jinja2.Template | None:
        if not source:
            return None
        try:
            return self._environment.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise InvalidConfig(
                f"{PROMPT_FILE}: '{what}' is broken in line {error.lineno}: {error.message}"
            ) from None

    def _used(self, source: str) -> Iterable[str]:
        return jinja2.meta.find_undeclared_variables(self._environment.parse(source))

    def _check_variables(self) -> None:
        file = self.file
        in_system, in_template = set(self._used(file.system)), set(self._used(file.template))
        for what, used in (("system", in_system), ("template", in_template)):
            for name in sorted(used - file.variables.keys() - self._environment.globals.keys()):
                raise InvalidConfig(
                    f"{PROMPT_FILE}: '{what}' uses '{name}', which is no variable; declare it: "
                    f"[variables] {name} = {{}}"
                )
        if file.input in in_system:
            raise InvalidConfig(
                f"{PROMPT_FILE}: 'system' uses '{file.input}', which is what the user says "
                "('input'); only 'template' may"
            )
        if file.template and file.input not in in_template:
            raise InvalidConfig(
                f"{PROMPT_FILE}: 'template' does not use '{file.input}', so that what the user "
                "says would be lost; write {{ " + file.input + " }} in it"
            )
        for name in file.variables.keys() - in_system - in_template - {file.input}:
            raise InvalidConfig(f"{PROMPT_FILE}: variable '{name}' is in no template")

    def _check_examples(self) -> None:
        for number, example in enumerate(self.file.examples, 1):
            place = f"{PROMPT_FILE}: example {number}"
            written = self._rendered(example.variables, place)
            if example.rendered is not None and written != example.rendered:
                raise InvalidConfig(
                    f"{place}: the template renders {written!r:.200}, not {example.rendered!r:.200}"
                )
        for number, shot in enumerate(self.file.shots, 1):
            self._rendered(shot.variables, f"{PROMPT_FILE}: few shot {number}")

    def _rendered(self, given: Values, place: str) -> str:
        for name in (self.file.input, *self.required):
            if name not in given:
                raise InvalidConfig(f"{place}: variable '{name}' is missing")
        text = str(given[self.file.input])
        try:
            self.system(given)
            return self.user(text, given)
        except InvalidRequest as error:
            raise InvalidConfig(f"{place}: {error.message}") from None


def _bounded(pieces: Iterable[str]) -> Iterator[str]:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > MAX_PROMPT_CHARACTERS:
            raise TemplateLimit(f"it writes more than {MAX_PROMPT_CHARACTERS} characters")
        yield piece
