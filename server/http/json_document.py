"""Strict JSON: no deep nesting, no duplicate keys, no NaN, and errors that a client understands."""

import json

import numpy as np
import orjson

from trivet.backends.api import InvalidRequest
from trivet.server.http.limits import JsonLimits

JsonObject = dict[str, object]

_STRUCTURE = b'"[]{}:,'
_NO_STRUCTURE = bytes(set(range(256)) - set(_STRUCTURE))
_BLOCK_BYTES = 1 << 20
VALUES_PER_CONTAINER = 20
_PREFIX = "failed to parse the request JSON buffer"
_TYPE_NAMES = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    type(None): "null",
}


def parse_object(text: bytes, limits: JsonLimits) -> JsonObject:
    """The object that a JSON text holds. Raises InvalidRequest.

    Depth and size are found in the text's brackets and commas before anything is built from it.
    """
    num_colons = text.count(b":")
    if not _is_small(text, num_colons, limits):
        skeleton = _skeleton(text)
        _check_depth(skeleton, limits)
        _check_size(skeleton, limits)
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"{_PREFIX}: {error}") from None
    if not isinstance(document, dict):
        raise InvalidRequest(f"{_PREFIX}: expected a JSON object, got {type_name(document)}")
    num_keys = _count_keys(document)
    # Texts may hold colons, too; where there is one for each key, no key is there twice.
    if num_colons != num_keys and _skeleton(text).count(b":") != num_keys:
        _check_keys(text)
    return document


def _is_small(text: bytes, num_colons: int, limits: JsonLimits) -> bool:
    """Whether all brackets and commas, those in strings too, stay within the limits."""
    num_opened = _num_opened(text)
    return (
        num_opened <= limits.max_depth
        and num_opened + text.count(b",") <= limits.max_values
        and num_opened + num_colons <= limits.max_values // VALUES_PER_CONTAINER
    )


def require_size(text: bytes, limits: JsonLimits) -> None:
    """Raises InvalidRequest for a text of more values than may be built from it."""
    _check_size(_skeleton(text), limits)


def type_name(value: object) -> str:
    """A parsed value's JSON type, with its article."""
    return _TYPE_NAMES[type(value)]


def _skeleton(text: bytes) -> bytes:
    """The brackets, colons and commas that are not inside of strings."""
    if b"\\" in text:
        # Pairs first: what then remains of a run of backslashes escapes the next character.
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    return _outside_strings(text.translate(None, _NO_STRUCTURE))


def _outside_strings(structure: bytes) -> bytes:
    """What is left without the strings, in blocks: pieces of a large text at once would take many
    times its memory."""
    pieces = []
    is_inside = 0
    for start in range(0, len(structure), _BLOCK_BYTES):
        parts = structure[start : start + _BLOCK_BYTES].split(b'"')
        pieces.append(b"".join(parts[is_inside::2]))
        is_inside ^= (len(parts) - 1) & 1
    return b"".join(pieces)


def _check_depth(skeleton: bytes, limits: JsonLimits) -> None:
    num_opened = _num_opened(skeleton)
    if num_opened > limits.max_depth and _is_too_deep(skeleton, limits.max_depth):
        raise InvalidRequest(
            f"{_PREFIX}: JSON nesting depth exceeds maximum allowed limit ({limits.max_depth}). "
            "Use --http-max-json-depth to increase the limit."
        )


def _check_size(skeleton: bytes, limits: JsonLimits) -> None:
    num_opened = _num_opened(skeleton)
    if num_opened + skeleton.count(b",") > limits.max_values:
        raise InvalidRequest(
            f"{_PREFIX}: it holds more than {limits.max_values} values; send large tensors as "
            "binary data, or use --http-max-json-values to increase the limit"
        )
    # An empty array of two bytes becomes 64, and so does the room of a key; the garbage collector
    # watches all of them.
    num_large = num_opened + skeleton.count(b":")
    max_large = limits.max_values // VALUES_PER_CONTAINER
    if num_large > max_large:
        raise InvalidRequest(
            f"{_PREFIX}: it holds {num_large} arrays, objects and keys, the limit is {max_large}; "
            "send the data of tensors flat or binary, or use --http-max-json-values, of which the "
            f"limit is a {VALUES_PER_CONTAINER}th"
        )


def _num_opened(skeleton: bytes) -> int:
    return skeleton.count(b"[") + skeleton.count(b"{")


def _is_too_deep(skeleton: bytes, max_depth: int) -> bool:
    depth = 0
    for start in range(0, len(skeleton), _BLOCK_BYTES):
        codes = np.frombuffer(skeleton[start : start + _BLOCK_BYTES], dtype=np.uint8)
        opened = (codes == ord("[")) | (codes == ord("{"))
        closed = (codes == ord("]")) | (codes == ord("}"))
        depths = depth + np.cumsum(opened.astype(np.int8) - closed.astype(np.int8), dtype=np.int64)
        if depths.max() > max_depth:
            return True
        depth = int(depths[-1])
    return False


def _count_keys(value: object) -> int:
    """Keys of an object and of all below it, but for arrays that begin with something else than an
    object: those hold tensor values, and objects among them are refused later."""
    num_keys = 0
    left = [value]
    while left:
        each = left.pop()
        if type(each) is dict:
            num_keys += len(each)
            left += each.values()
        elif type(each) is list and each and type(each[0]) is dict:
            left += each
    return num_keys


def _check_keys(text: bytes) -> None:
    """Parses once more, slowly, to name a key that an object has twice."""
    json.loads(text, object_pairs_hook=_object_without_duplicates)


def _object_without_duplicates(pairs: list[tuple[str, object]]) -> JsonObject:
    found: JsonObject = {}
    for key, value in pairs:
        if key in found:
            raise InvalidRequest(f"{_PREFIX}: duplicate key '{key[:64]}'")
        found[key] = value
    return found
