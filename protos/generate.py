"""Makes `*_pb2.py` and `*_pb2.pyi` from `*.proto`: `python -m trivet.protos.generate`.

The virtual path `trivet/protos` makes the generated imports absolute, so nothing depends on
`sys.path`. The generated modules then register in `trivet.protos.pool.POOL`.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEFAULT_POOL_IMPORT = "from google.protobuf import descriptor_pool as _descriptor_pool\n"


def generate(target: Path) -> list[Path]:
    """Writes the modules under `target`/trivet/protos and returns their paths."""
    from grpc_tools import protoc

    protos = sorted(HERE.glob("*.proto"))
    include = Path(protoc.__file__).parent / "_proto"
    arguments = ["protoc", f"-Itrivet/protos={HERE}", f"-I{include}"]
    arguments += [f"--python_out={target}", f"--pyi_out={target}"]
    if protoc.main([*arguments, *(f"trivet/protos/{path.name}" for path in protos)]) != 0:
        raise SystemExit("protoc failed; its message is above")
    modules = sorted((target / "trivet" / "protos").glob("*_pb2.py"))
    for module in modules:
        module.write_text(use_own_pool(module.read_text()))
    return modules


def use_own_pool(source: str) -> str:
    """Replaces the default descriptor pool, by name and by use, with ours."""
    if DEFAULT_POOL_IMPORT not in source:
        raise SystemExit("protoc's output has changed: no descriptor_pool import to replace")
    source = source.replace(DEFAULT_POOL_IMPORT, "from trivet.protos.pool import POOL as _POOL\n")
    return source.replace("_descriptor_pool.Default()", "_POOL")


if __name__ == "__main__":
    for written in generate(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent):
        print(written)
