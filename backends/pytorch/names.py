"""Matches the tensor names of a config with a program's arguments and results. Pure.

Names are, in this order: the program's own (`mask`, `KWARGS[mask]`); numbered (`INPUT__0`,
`OUTPUT__1`, `ARGS[0]`, `RESULT[1]`); or else anything, in the program's order.
"""

import re
from collections.abc import Mapping, Sequence

from trivet.backends.api import BackendFailed, InvalidConfig

_NUMBERED = re.compile(r".*__(\d+)|(?:ARGS|RESULT)\[(\d+)\]")


def match_positions(
    model_name: str, names: Sequence[str], own_names: Sequence[str] | None
) -> dict[str, int]:
    """The position of each config name among the program's; `own_names` None: their number is
    unknown. Raises InvalidConfig for a position that is not there or taken twice."""
    if own_names is not None and set(names) <= set(own_names):
        return {name: own_names.index(name) for name in names}
    matches = [_NUMBERED.fullmatch(name) for name in names]
    positions = {
        name: int(match[1] or match[2]) if match and all(matches) else index
        for index, (name, match) in enumerate(zip(names, matches, strict=True))
    }
    limit = len(own_names) if own_names is not None else max(positions.values(), default=0) + 1
    if len(set(positions.values())) < len(names) or max(positions.values(), default=0) >= limit:
        raise InvalidConfig(
            f"model '{model_name}': the config's tensors {list(names)} do not fit the program, "
            f"which has {list(own_names or ())}; use these names or numbers from __0 on"
        )
    return positions


def pick(result: object, name: str, position: int) -> object:
    """One output from what a program returned: a tensor, a sequence or a dict of them.

    Raises BackendFailed when it is not there.
    """
    if isinstance(result, Mapping):
        if name in result:
            return result[name]
        result = list(result.values())
    elif not isinstance(result, (tuple, list)):
        result = [result]
    if position >= len(result):
        raise BackendFailed(
            f"the model returned {len(result)} value(s), none of which is output '{name}'"
        )
    return result[position]
