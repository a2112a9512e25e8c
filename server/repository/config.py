"""Config files: from text to a complete ModelConfig, every error with file, line and a way out."""

import difflib
import os
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from google.protobuf import text_format

from trivet.backends.api import About, InvalidConfig, Placement, from_json, parameter
from trivet.protos.model_config_pb2 import ModelConfig, ModelInstanceGroup
from trivet.protos.pool import POOL
from trivet.server.repository.layout import ModelFolder

CONFIG_NAME = "config.pbtxt"
NAMED_CONFIGS = "configs"
GPU_UUIDS = "gpu_uuids"
MAX_CONFIG_BYTES = 1024 * 1024
_POSITION = re.compile(r"^(\d+):(\d+) : (?:'.*?': )?(.*)$", re.DOTALL)
_UNKNOWN_FIELD = re.compile(r'Message type "([\w.]+)" has no field named "(\w+)"')


def config_of(
    folder: ModelFolder, override_json: str | None = None, config_name: str = ""
) -> ModelConfig:
    """The config of a model as it lies; see `read_config`. Lone files have none."""
    if folder.lone and override_json is None:
        return ModelConfig(name=folder.name)
    return read_config(folder.path, override_json, config_name, name=folder.name)


def read_config(
    model_dir: Path, override_json: str | None = None, config_name: str = "", *, name: str = ""
) -> ModelConfig:
    """The config of a model folder, or the overriding one; without either only the name is set.
    `name`: the model's, where the folder is called otherwise.

    With a `config_name`, `configs/<config_name>.pbtxt` is read where there is one.

    Raises InvalidConfig: "<model>/config.pbtxt:LINE:COLUMN: what. how to fix it".
    """
    name = name or model_dir.name
    if override_json is not None:
        if len(override_json) > MAX_CONFIG_BYTES:
            raise InvalidConfig(
                f"the config override has {len(override_json)} characters; at most "
                f"{MAX_CONFIG_BYTES} are read"
            )
        config = from_json(override_json)
        where = f"config override of model '{name}'"
    else:
        inside = _place(model_dir, config_name)
        where = f"{name}/{inside}"
        config = parse_config(_read(model_dir / inside, where), where)
    if config.name and config.name != name:
        raise InvalidConfig(
            f"{where}: name is '{config.name}' but the model's folder is '{name}'; "
            "make them equal or leave `name` out"
        )
    config.name = name
    return config


def _place(model_dir: Path, config_name: str) -> str:
    named = f"{NAMED_CONFIGS}/{config_name}.pbtxt"
    try:
        return named if config_name and (model_dir / named).is_file() else CONFIG_NAME
    except OSError as error:
        where = f"{model_dir.name}/{named}"
        raise InvalidConfig(f"{where}: cannot be read: {error.strerror}") from error


def _read(path: Path, where: str) -> str:
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise InvalidConfig(
                f"{where}: the file has {path.stat().st_size} bytes; at most {MAX_CONFIG_BYTES} "
                "are read"
            )
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        raise InvalidConfig(f"{where}: not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise InvalidConfig(f"{where}: cannot be read: {error.strerror}") from error


def parse_config(text: str, where: str) -> ModelConfig:
    """A config from protobuf text format. Raises InvalidConfig with the position."""
    try:
        return text_format.Parse(text, ModelConfig(), descriptor_pool=POOL)
    except text_format.ParseError as error:
        raise InvalidConfig(_explain(error, where)) from None


def _explain(error: text_format.ParseError, where: str) -> str:
    found = _POSITION.match(str(error))
    line, column, what = (found[1], found[2], found[3]) if found else ("1", "1", str(error))
    unknown = _UNKNOWN_FIELD.search(what)
    if unknown:
        what = f"unknown field '{unknown[2]}' in {unknown[1].removeprefix('inference.')}"
        fields = [f.name for f in POOL.FindMessageTypeByName(unknown[1]).fields]
        near = difflib.get_close_matches(unknown[2], fields, n=1)
        what += f"; did you mean '{near[0]}'?" if near else f"; known are {', '.join(fields)}"
    return f"{where}:{line}:{column}: {what.rstrip('.')}"


def select_versions(config: ModelConfig, available: Iterable[int]) -> list[int]:
    """The versions that the policy serves, ascending; without a policy the newest one."""
    ordered = sorted(available)
    policy = config.version_policy
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return ordered
    if choice == "specific":
        return [version for version in ordered if version in policy.specific.versions]
    count = policy.latest.num_versions if choice == "latest" else 1
    return ordered[-max(1, count) :]


def normalise(config: ModelConfig, about: About | None = None, *, num_gpus: int = 0) -> ModelConfig:
    """A copy with every default written out, as Triton's model configuration endpoint shows it.

    `about`: its backend, where that is known; `num_gpus`: how many there are that it can use.
    """
    full = ModelConfig()
    full.CopyFrom(config)
    if full.version_policy.WhichOneof("policy_choice") is None:
        full.version_policy.latest.num_versions = 1
    if not full.platform and about is not None:
        full.platform = about.platform
    if not full.HasField("ensemble_scheduling"):
        if not full.optimization.HasField("input_pinned_memory"):
            full.optimization.input_pinned_memory.enable = True
        if not full.optimization.HasField("output_pinned_memory"):
            full.optimization.output_pinned_memory.enable = True
    if full.WhichOneof("scheduling_choice") == "dynamic_batching" and full.max_batch_size > 0:
        batching = full.dynamic_batching
        if not batching.preferred_batch_size:
            batching.preferred_batch_size.append(full.max_batch_size)
    _normalise_groups(full, num_gpus, 1 if about is None else about.cpu_instances)
    return full


def _normalise_groups(config: ModelConfig, num_gpus: int, cpu_instances: int) -> None:
    if config.WhichOneof("scheduling_choice") == "ensemble_scheduling":
        return
    groups = config.instance_group
    if not groups:
        groups.add()
    for index, group in enumerate(groups):
        group.name = group.name or (config.name if len(groups) == 1 else f"{config.name}_{index}")
        if group.kind == ModelInstanceGroup.KIND_AUTO:
            can_use_gpu = num_gpus > 0 and all(gpu < num_gpus for gpu in group.gpus)
            group.kind = ModelInstanceGroup.KIND_GPU if can_use_gpu else ModelInstanceGroup.KIND_CPU
        if group.count == 0:
            on_cpu = group.kind == ModelInstanceGroup.KIND_CPU
            group.count = cpu_instances if on_cpu else 1
        if group.kind == ModelInstanceGroup.KIND_GPU and not group.gpus:
            group.gpus.extend(range(num_gpus))


def gpu_uuids(config: ModelConfig) -> list[str]:
    """The parameter gpu_uuids: GPUs or MIG devices by name. Raises InvalidConfig."""
    uuids = [part.strip() for part in parameter(config, GPU_UUIDS).split(",") if part.strip()]
    for uuid in uuids:
        if not uuid.startswith(("GPU-", "MIG-")):
            raise InvalidConfig(
                f"model '{config.name}': parameter {GPU_UUIDS} has '{uuid}', which is no UUID; "
                "nvidia-smi -L lists them (GPU-... and MIG-...)"
            )
    return uuids


def instances(config: ModelConfig) -> list[Placement]:
    """Where each instance of a normalised config runs; CPU threads are shared out among them."""
    if config.HasField("ensemble_scheduling"):
        return [Placement(config.name, "KIND_CPU", 0, 1)]
    placed: list[Placement] = []
    uuids = gpu_uuids(config)
    for group in config.instance_group:
        if group.passive:
            continue
        kind = ModelInstanceGroup.Kind.Name(group.kind)
        devices: list[tuple[int, str]] = [(0, "")]
        if group.kind == ModelInstanceGroup.KIND_GPU:
            devices = [(0, uuid) for uuid in uuids] or [(gpu, "") for gpu in group.gpus]
        for number, uuid in devices:
            first = len(placed)
            names = [f"{group.name}_{first + n}" for n in range(group.count)]
            more = (tuple(group.profile), group.host_policy, uuid)
            placed += [Placement(name, kind, number, 1, *more) for name in names]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = max(1, (cores or 1) // max(1, len(placed)))
    return [replace(placement, cpu_threads=threads) for placement in placed]
