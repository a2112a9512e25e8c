"""A case made of a request that was traced with its tensors."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trivet.backends.api.datatype import BY_NAME, DataType
from trivet.server.evaluation.case import read_set
from trivet.server.evaluation.faults import SetFault

_INPUT, _OUTPUT = "TENSOR_QUEUE_INPUT", "TENSOR_BACKEND_OUTPUT"
_INTEGERS = ("INT", "UINT")


def add_case(
    path: Path, trace: Path, request_id: str, case_id: str, tolerance: float
) -> Mapping[str, Any]:
    """Appends it to a set, which may not be there yet; returns it. Raises SetFault."""
    tensors = _tensors_of(_entries(trace), request_id, trace)
    expect = [_expected(each, tolerance, trace) for each in tensors[_OUTPUT]]
    if not tensors[_INPUT] or not expect:
        raise SetFault(
            f"{trace}: request '{request_id}' was traced without its tensors; trace with "
            "--trace-config level=TENSORS"
        )
    case = {"id": case_id, **_asked(tensors[_INPUT], trace), "expect": expect}
    if path.exists() and case_id in {each.id for each in read_set(path).cases}:
        raise SetFault(f"{path}: it has a case '{case_id}' already; give another --id")
    _append(path, json.dumps(case))
    read_set(path)
    return case


def _entries(trace: Path) -> Sequence[Mapping[str, Any]]:
    try:
        text = trace.read_text(encoding="utf-8").rstrip().rstrip(",")
        # A file that is still written to, or whose server was killed, lacks its end.
        found = json.loads(text if text.endswith("]") and _is_whole(text) else f"{text}]")
    except (OSError, ValueError) as error:
        raise SetFault(f"{trace}: it is no file of traces: {error}") from None
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise SetFault(f"{trace}: it is no file of traces")
    return found


def _is_whole(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _tensors_of(
    entries: Sequence[Mapping[str, Any]], request_id: str, trace: Path
) -> Mapping[str, list[Mapping[str, str]]]:
    """Of the request itself, and not of models that were asked for it."""
    numbers = [
        each["id"]
        for each in entries
        if each.get("request_id") == request_id and "parent_id" not in each
    ]
    if not numbers:
        known = sorted({str(each["request_id"]) for each in entries if "request_id" in each})
        shown = ", ".join(known[:8]) or "none with an id"
        raise SetFault(f"{trace}: there is no request '{request_id}'; there are {shown}")
    found: dict[str, list[Mapping[str, str]]] = {_INPUT: [], _OUTPUT: []}
    for each in entries:
        if each.get("id") == numbers[-1] and each.get("activity") in found:
            found[each["activity"]].append(each["tensor"])
    return found


def _asked(tensors: Sequence[Mapping[str, str]], trace: Path) -> Mapping[str, Any]:
    """What was asked: of a language model its text."""
    first = tensors[0]
    if first["name"] == "messages" and len(tensors) == 1:
        try:
            return {"messages": json.loads(first["data"])}
        except ValueError as error:
            raise SetFault(f"{trace}: the conversation is no JSON: {error}") from None
    if first["name"] == "prompt" and len(tensors) == 1:
        return {"prompt": first["data"]}
    return {"inputs": {each["name"]: _values(each, trace) for each in tensors}}


def _expected(tensor: Mapping[str, str], tolerance: float, trace: Path) -> Mapping[str, Any]:
    values = _values(tensor, trace)
    if tensor["name"] == "text_output":
        return {"match": "exact", "value": tensor["data"].strip()}
    if BY_NAME[tensor["dtype"]] is DataType.BYTES:
        return {"match": "exact", "output": tensor["name"], "value": values}
    return {
        "match": "numeric",
        "output": tensor["name"],
        "value": values,
        "tolerance": tolerance,
    }


def _values(tensor: Mapping[str, str], trace: Path) -> Any:
    """As nested lists."""
    shape = [int(size) for size in tensor["shape"].split(",") if size]
    word, data = tensor["dtype"], tensor["data"]
    count = 1
    for size in shape:
        count *= size
    items = [data] if count == 1 else data.split(",") if data else []
    if len(items) != count:
        raise SetFault(
            f"{trace}: tensor '{tensor['name']}' of {count} elements has commas in its texts, "
            "which Triton's form of traces does not tell from those between them"
        )
    return _nested([_value(item, word) for item in items], shape)


def _value(text: str, word: str) -> Any:
    if BY_NAME[word] is DataType.BYTES:
        return text
    if BY_NAME[word] is DataType.BOOL:
        return text in ("1", "true", "True")
    return int(text) if word.startswith(_INTEGERS) else float(text)


def _nested(values: list[Any], shape: Sequence[int]) -> Any:
    for size in reversed(shape[1:]):
        values = [values[i : i + size] for i in range(0, len(values), size)] if size else []
    return values


def _append(path: Path, line: str) -> None:
    try:
        before = path.read_bytes() if path.exists() else b""
        between = b"" if not before or before.endswith(b"\n") else b"\n"
        with path.open("ab") as file:
            file.write(between + line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise SetFault(f"{path}: it cannot be written: {error.strerror}") from None
