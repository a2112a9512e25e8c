"""What the server knows a model by: its key. Pure.

A key is the model's name. Where repositories are namespaces, and two of them may hold models of one
name, it is "NAMESPACE::NAME" as Triton writes it; a model's name has no colon.
"""

_BETWEEN = "::"


def key_of(namespace: str, name: str) -> str:
    """The key of a model; its name where there are no namespaces."""
    return f"{namespace}{_BETWEEN}{name}" if namespace else name


def name_in(key: str) -> str:
    """The name of the model with this key."""
    return key.rpartition(_BETWEEN)[2]


def namespace_in(key: str) -> str:
    """The namespace of the model with this key; empty without namespaces."""
    return key.rpartition(_BETWEEN)[0]
