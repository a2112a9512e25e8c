"""The config fields that an ensemble has and may not have, however its steps look. Pure."""

from trivet.backends.api import InvalidConfig, parameter
from trivet.ensembles.settings import MERGE_REQUESTS
from trivet.protos.model_config_pb2 import ModelConfig

FORBIDDEN = ("instance_group", "optimization", "model_warmup", "default_model_filename")
"""Config fields that mean something only where a model is opened."""
MAX_STEPS = 1024


def check_fields(config: ModelConfig) -> None:
    """Raises InvalidConfig for what an ensemble cannot have, however its steps look."""
    where = f"{config.name}/config.pbtxt"
    if not config.HasField("ensemble_scheduling") or not config.ensemble_scheduling.step:
        raise InvalidConfig(
            f"{where}: an ensemble must specify at least one step: "
            "ensemble_scheduling { step [ { model_name ... input_map ... output_map ... } ] }"
        )
    num_steps = len(config.ensemble_scheduling.step)
    if num_steps > MAX_STEPS:
        raise InvalidConfig(f"{where}: {num_steps} steps; at most {MAX_STEPS} are allowed")
    for name in FORBIDDEN:
        field = config.DESCRIPTOR.fields_by_name[name]
        is_set = (
            bool(getattr(config, name)) if not field.message_type else bool(_given(config, name))
        )
        if is_set:
            raise InvalidConfig(
                f"{where}: {name} cannot be set for an ensemble, which opens nothing itself; set "
                "it in the configs of the steps' models"
            )
    merging = parameter(config, MERGE_REQUESTS, "auto")
    if merging not in ("auto", "true", "false"):
        raise InvalidConfig(
            f"{where}: parameter {MERGE_REQUESTS} is '{merging}'; it must be auto, true or false"
        )
    if config.max_batch_size < 0:
        raise InvalidConfig(
            f"{where}: max_batch_size must be 0 or more, got {config.max_batch_size}"
        )


def _given(config: ModelConfig, name: str) -> bool:
    return any(field.name == name for field, _ in config.ListFields())
