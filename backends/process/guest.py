"""The start of a process in an environment of the model's own: what is ours comes to it as a guest.

The environment's interpreter finds the environment's packages. Beside these it finds ours, and what
we cannot do without, in the server's folders; nothing else that is installed there:

- `trivet` always from the server,
- Protobuf from the server, loaded before the model and then hidden from it: the model imports the
  environment's own, of whichever version, or none,
- NumPy and the like from the environment, and from the server only where it has none: the model and
  we hand each other arrays.

Runs as a file, in an interpreter that knows nothing of us: imports the standard library alone. The
arguments are a JSON object and those of the program that it goes on as.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


class Served(MetaPathFinder):
    """Finds some packages in folders that are not on the path."""

    def __init__(self, folders: Mapping[str, str]) -> None:
        """`folders`: by full name, where the package lies."""
        self._folders = dict(folders)

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - of MetaPathFinder
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """See MetaPathFinder."""
        folder = self._folders.get(fullname)
        return None if folder is None else PathFinder.find_spec(fullname, [folder], target)


def main() -> None:
    """The program."""
    given = json.loads(sys.argv.pop(1))
    private = Served(given["private"])
    sys.meta_path.insert(0, private)
    sys.meta_path.insert(0, Served(given["ours"]))
    sys.meta_path.append(Served(given["shared"]))
    network = ""
    if given["is_confined"]:
        # Before anything is imported that starts threads.
        from trivet.backends.confinement import leave_network

        reason = leave_network()
        network = "" if reason is None else f"not taken away ({reason})"
    from trivet.backends.process.child import main as serve
    from trivet.protos import model_config_pb2

    options = _options(model_config_pb2.DESCRIPTOR.message_types_by_name)
    sys.meta_path.remove(private)
    _hide(given["private"])
    serve(network)
    del options


def _options(types: Mapping[str, Any]) -> list[Any]:
    """Messages' descriptors, which keep their options as long as they are kept themselves. Protobuf
    imports a module of its own when it first gives out a descriptor's options: too late then."""
    found = []
    for each in types.values():
        each.GetOptions()
        found += [each, *_options(each.nested_types_by_name)]
    return found


def _hide(names: Mapping[str, str]) -> None:
    """Our modules go on with what they have; who imports it anew gets the environment's."""
    roots = tuple(f"{name}." for name in names)
    for name in list(sys.modules):
        if name in names or name.startswith(roots):
            del sys.modules[name]


if __name__ == "__main__":
    main()
