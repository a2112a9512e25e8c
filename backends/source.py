"""Runs a source file that lies in a model's folder as a module."""

import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import CodeType, ModuleType

from trivet.backends.api import InvalidConfig


class _AsItStands(SourceFileLoader):
    """Neither reads nor writes byte code beside the file: that of another file of the same second
    and length would be taken for this one's, and a version that was just replaced would run on."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


def run_source(name: str, path: Path) -> ModuleType:
    """The module, by a name that nothing else has: it stays in sys.modules under it, where
    dataclasses and torch.compile look it up. What the file raises passes through. Raises
    InvalidConfig for a file of another kind."""
    if path.suffix != ".py":
        raise InvalidConfig(f"'{path.name}' is not a Python file; default_model_filename names it")
    spec = spec_from_loader(name, _AsItStands(name, str(path)))
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    assert spec.loader is not None
    spec.loader.exec_module(module)
    return module
