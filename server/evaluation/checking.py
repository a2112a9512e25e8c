"""The process behind `BoundedChecks`: a question a line, an answer a line, until it is ended."""

import json
import re
import sys
from typing import Any

_NO_LIBRARY = "JSON schemas need the package 'jsonschema_rs': pip install 'trivet[eval]'"


def answer_to(question: dict[str, Any]) -> dict[str, Any]:
    """What is found; `fault` where the pattern or the schema is none."""
    if "pattern" in question:
        try:
            found = re.search(question["pattern"], question["text"]) is not None
        except re.error as error:
            return {"fault": f"it is no regular expression: {error}"}
        return {"found": found}
    return _validated(question["schema"], question["value"])


def _validated(schema: Any, value: Any) -> dict[str, Any]:
    try:
        import jsonschema_rs
    except ImportError:
        return {"fault": _NO_LIBRARY}
    try:
        validator = jsonschema_rs.validator_for(schema, retriever=_refuse)
    except (ValueError, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
        return {"fault": f"it is no JSON schema: {_first_line(error)}"}
    found = next(iter(validator.iter_errors(value)), None)
    if found is None:
        return {"why": ""}
    path = "".join(f"[{step!r}]" for step in found.instance_path)
    return {"why": f"{path or 'it'}: {found.message[:400]}"}


def _refuse(address: str) -> Any:
    raise ValueError(f"'{address[:200]}' lies elsewhere; nothing is fetched")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:400] if str(error) else type(error).__name__


def main() -> None:
    """Answers until nobody asks."""
    _tell("")  # it has started
    for line in sys.stdin:
        _tell(json.dumps(answer_to(json.loads(line))))


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
