"""Label files: what the numbers of classes mean."""

from collections.abc import Sequence

from trivet.backends.api import InvalidConfig, ModelFiles, storage_fault
from trivet.protos.model_config_pb2 import ModelConfig


def read_labels(config: ModelConfig, files: ModelFiles) -> dict[str, Sequence[str]]:
    """The label files of a config's outputs: a label per line, its index is the line's."""
    labels: dict[str, Sequence[str]] = {}
    for output in config.output:
        if not output.label_filename:
            continue
        path = files.inside(files.model_dir, output.label_filename)
        try:
            labels[output.name] = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidConfig(
                f"label file '{output.label_filename}' of output '{output.name}' cannot be read "
                f"as UTF-8 text: {storage_fault(error) or type(error).__name__}"
            ) from error
    return labels
