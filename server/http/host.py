"""The Host header: whom a request was meant for, as its client says."""

import re
from functools import lru_cache

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,255})(:[0-9]{1,5})?")


@lru_cache(maxsize=256)
def is_host(text: str) -> bool:
    """Whether it holds a name or an address, perhaps with a port, and nothing else."""
    return _HOST.fullmatch(text) is not None
