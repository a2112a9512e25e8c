"""What must be equal for two requests to have the same answer. Pure, except for reading files.

128 bits of BLAKE2b: a false match is as likely as a broken disk going unnoticed.
"""

import hashlib
from pathlib import Path

from trivet.backends.api import CheckedRequest, ModelFiles
from trivet.protos.model_config_pb2 import ModelConfig

KEY_BYTES = 16


def digest_of_model(config: ModelConfig, files: ModelFiles) -> bytes:
    """Of a model's config and of its files' content, all but those of other versions: a changed
    model must not be answered for by its predecessor, and equal ones on several servers share
    answers."""
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    _add(digest, config.SerializeToString(deterministic=True))
    paths = files.walk() if files.lone else files.model_dir.rglob("*")
    for path in sorted(paths):
        inside = path.relative_to(files.model_dir)
        is_other = inside.parts[0].isdigit() and inside.parts[0] != str(files.version)
        if path.is_file() and not is_other:
            _add(digest, str(inside).encode())
            _add(digest, _digest_of_file(path))
    return digest.digest()


def _digest_of_file(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()


def key_of(model: bytes, request: CheckedRequest) -> bytes:
    """The key of a request to the model with this digest.

    Id, priority and time-outs do not count. Parameters do, since a model can read them, and so does
    the choice of outputs. Tenants share no answers: the time of one would tell what others asked.
    """
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    _add(digest, model)
    for name in sorted(request.inputs):
        tensor = request.inputs[name]
        _add(digest, f"{name} {tensor.datatype.value} {tensor.shape}".encode())
        _add(digest, tensor.raw())
    _add(digest, repr(sorted(request.output_names)).encode())
    _add(digest, repr(sorted(request.parameters.items())).encode())
    _add(digest, request.tenant.encode())
    return digest.digest()


def _add(digest: "hashlib.blake2b", part: bytes | memoryview) -> None:
    """With its length, so that no two lists of parts look alike."""
    digest.update(len(part).to_bytes(8, "little"))
    digest.update(part)
