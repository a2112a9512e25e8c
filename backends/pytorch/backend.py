"""Opens PyTorch models of every kind: TorchScript, torch.export, AOTInductor, Python module."""

from pathlib import Path

import torch

from trivet.backends.api import (
    DataType,
    DeviceLost,
    Instance,
    InvalidConfig,
    LoadFailed,
    ModelFiles,
    Pickles,
    Placement,
    Signature,
)
from trivet.backends.api.extent import check_batch
from trivet.backends.api.supplied import instance_config
from trivet.backends.device.buckets import buckets_of
from trivet.backends.device.cuda import open_gpu
from trivet.backends.device.errors import DeviceFailed, as_load_failure
from trivet.backends.device.gpus import new_lane
from trivet.backends.process import open_isolated
from trivet.backends.pytorch.about import ABOUT, MODULE_FILE
from trivet.backends.pytorch.archive import Kind, kind_of, refuse_program_missing
from trivet.backends.pytorch.bounds import compiled_extents
from trivet.backends.pytorch.compiled import load_compiled
from trivet.backends.pytorch.cuda import CudaTorch
from trivet.backends.pytorch.exported import complete_exported, load_exported
from trivet.backends.pytorch.gpu_instance import GpuPyTorchInstance
from trivet.backends.pytorch.instance import PyTorchInstance
from trivet.backends.pytorch.module import load_module
from trivet.backends.pytorch.parameters import PyTorchParameters
from trivet.backends.pytorch.pickled import load_pickled
from trivet.backends.pytorch.program import Program
from trivet.backends.pytorch.script import load_script
from trivet.backends.pytorch.tensors import DATATYPES
from trivet.backends.pytorch.texts import check_texts
from trivet.backends.torch_threads import THREADS
from trivet.protos.model_config_pb2 import TYPE_STRING, ModelConfig, ModelInput, ModelOutput


class PyTorchBackend:
    """`backend: "pytorch"`."""

    def can_use_gpus(self) -> bool:
        return torch.cuda.is_available()

    def complete(self, config: ModelConfig, files: ModelFiles) -> ModelConfig:
        """Only torch.export archives describe their tensors; others need them in the config."""
        path = _artifact(config, files)
        if path is not None and kind_of(path) is Kind.EXPORTED:
            return complete_exported(config, path)
        _check_tensors(config, takes_texts=path is not None and kind_of(path) is Kind.SCRIPT)
        if path is not None and kind_of(path) is Kind.COMPILED:
            extents = compiled_extents(path)
            check_batch(config, {f"ARGS[{place}]": each for place, each in extents.items()})
        return config

    def open(self, config: ModelConfig, files: ModelFiles, placement: Placement) -> Instance:
        """Raises LoadFailed, InvalidConfig."""
        # Without auto-completion nobody has compared the config with the file yet.
        self.complete(config, files)
        if files.pickles is Pickles.APART and _is_pickled(_artifact(config, files)):
            return open_isolated(ABOUT.word, config, files, placement)
        parameters = PyTorchParameters.read(config)
        THREADS.use(placement.cpu_threads, asked=parameters.intra_op_threads)
        if parameters.inter_op_threads:
            THREADS.use_between(parameters.inter_op_threads)
        device = _device(config, placement)
        seen = instance_config(config)
        signature = Signature.from_config(seen)
        specs = (*signature.inputs.values(), *signature.outputs.values())
        # Texts are on the host; such a program brings what else it needs to the GPU by itself.
        has_texts = any(spec.datatype is DataType.BYTES for spec in specs)
        if device is not None and device.type == "cuda" and not has_texts:
            return self._open_on_gpu(seen, files, device, parameters)
        program = _load(seen, files, device, parameters)
        return PyTorchInstance(program, signature, device, parameters)

    def _open_on_gpu(
        self,
        config: ModelConfig,
        files: ModelFiles,
        device: torch.device,
        parameters: PyTorchParameters,
    ) -> GpuPyTorchInstance:
        signature = Signature.from_config(config)
        shapes = {n: signature.full_dims(spec) for n, spec in signature.inputs.items()}
        buckets = buckets_of(config, shapes)
        try:
            with torch.cuda.device(device):
                lane = new_lane(open_gpu(device.index), config)
                program = _load(config, files, device, parameters)
                return GpuPyTorchInstance(
                    program, signature, lane, CudaTorch(device), parameters, buckets
                )
        except (DeviceFailed, DeviceLost) as error:
            raise as_load_failure(config.name, error) from error


def _artifact(config: ModelConfig, files: ModelFiles) -> Path | None:
    """The program's file; None when it is a Python class, whose file only holds weights."""
    if config.runtime.endswith(".py"):
        return None
    present = next(
        (n for n in ABOUT.model_files if (files.version_dir / n).exists()), ABOUT.model_files[-1]
    )
    has_class = (files.version_dir / MODULE_FILE).exists()
    if has_class and not (files.version_dir / present).exists():
        return None
    path = files.artifact(config, present)
    if not _is_pickled(path):
        return path
    if has_class and kind_of(path) is Kind.STATE_DICT:
        return None
    if files.pickles is Pickles.REFUSED:
        raise refuse_program_missing(config.name, path)
    return path


def _is_pickled(path: Path | None) -> bool:
    return path is not None and kind_of(path) in (Kind.STATE_DICT, Kind.PICKLE)


def _check_tensors(config: ModelConfig, *, takes_texts: bool) -> None:
    if not config.input or not config.output:
        raise InvalidConfig(
            f"model '{config.name}': its file does not say the types and shapes of its tensors; "
            "list input and output in config.pbtxt, or save the model with torch.export.save as "
            "model.pt2, which says them"
        )
    supported = {datatype.to_config() for datatype in DATATYPES.values()}
    if takes_texts:
        supported.add(TYPE_STRING)
        check_texts(config)
    tensors: list[ModelInput | ModelOutput] = [*config.input, *config.output]
    for tensor in tensors:
        if tensor.data_type not in supported:
            raise InvalidConfig(
                f"model '{config.name}': tensor '{tensor.name}' has a data_type that PyTorch has "
                "no tensor for; it takes all types but TYPE_STRING, which TorchScript alone has"
            )


def _device(config: ModelConfig, placement: Placement) -> torch.device | None:
    if placement.kind == "KIND_MODEL":
        return None
    if placement.kind != "KIND_GPU":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise LoadFailed(
            f"model '{config.name}' asks for GPU {placement.device_id}, but PyTorch "
            f"{torch.__version__} {_why_no_cuda()}"
        )
    if placement.device_id >= torch.cuda.device_count():
        raise LoadFailed(
            f"model '{config.name}' asks for GPU {placement.device_id}, but PyTorch "
            f"{torch.__version__} sees {torch.cuda.device_count()} GPUs"
        )
    return torch.device("cuda", placement.device_id)


def _why_no_cuda() -> str:
    if torch.version.cuda is None:
        return "is built without CUDA; install a build for GPUs (pytorch.org says which)"
    return (
        f"is built for CUDA {torch.version.cuda} and finds no GPU that it can use: nvidia-smi "
        "shows the driver's version and GPUs, CUDA_VISIBLE_DEVICES hides some"
    )


def _load(
    config: ModelConfig,
    files: ModelFiles,
    device: torch.device | None,
    parameters: PyTorchParameters,
) -> Program:
    path = _artifact(config, files)
    if path is None:
        return load_module(config, files, device, parameters)
    if _is_pickled(path):
        assert files.pickles is Pickles.HERE, "pickles are loaded in their own process"
        return load_pickled(config, path, device, parameters)
    loaders = {
        Kind.SCRIPT: load_script,
        Kind.EXPORTED: load_exported,
        Kind.COMPILED: load_compiled,
    }
    return loaders[kind_of(path)](config, path, device)


BACKEND = PyTorchBackend()
