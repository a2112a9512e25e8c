"""The inputs and outputs of an ensemble itself: filled in, or checked where given. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NoReturn

from trivet.backends.api import DataType, InvalidConfig, Shape, Signature, TensorSpec
from trivet.ensembles.dimensions import shift_between
from trivet.ensembles.graph import Edge, TensorInfo
from trivet.ensembles.settings import StepSettings
from trivet.protos.model_config_pb2 import ModelConfig


class Interface:
    """Completes the config that it is given. `inputs` comes first."""

    def __init__(
        self,
        config: ModelConfig,
        signatures: Sequence[Signature],
        settings: Sequence[StepSettings],
    ) -> None:
        self._config = config
        self._steps = list(config.ensemble_scheduling.step)
        self._signatures = signatures
        self._settings = settings

    def inputs(self) -> dict[str, TensorInfo]:
        """The ensemble's inputs: all tensors that no step makes, if none is given."""
        self._fill_batch_size()
        made = {name for step in self._steps for name in step.output_map.values()}
        uses = dict(self._uses(made))
        if not self._config.input:
            for tensor in uses:
                self._config.input.add(name=tensor)
        tensors: dict[str, TensorInfo] = {}
        for given in self._config.input:
            if given.name in uses:
                spec, dims = uses[given.name]
                given.data_type = given.data_type or spec.datatype.to_config()
                if not given.dims:
                    given.dims.extend(dims)
            elif given.name not in made and not self._is_asked_about(given.name):
                self._refuse(f"input '{given.name}'", "is not used: no step's input_map names it")
            if not given.data_type:
                self._refuse(f"input '{given.name}'", "must specify a data_type")
            datatype = DataType.from_config(given.data_type)
            tensors[given.name] = TensorInfo(
                datatype, self._whole(given.dims), self._batching, "an input of the ensemble"
            )
        return tensors

    def _fill_batch_size(self) -> None:
        """Where nothing is given and all steps batch, so does the ensemble."""
        config = self._config
        if config.max_batch_size or config.input or config.output:
            return
        if all(signature.batching for signature in self._signatures):
            config.max_batch_size = min(each.max_batch_size for each in self._signatures)

    def _uses(self, made: set[str]) -> Iterator[tuple[str, tuple[TensorSpec, Shape]]]:
        """The tensors that no step makes, with the dims that they should have."""
        seen: set[str] = set()
        for step, signature, settings in zip(
            self._steps, self._signatures, self._settings, strict=True
        ):
            for name, spec in signature.inputs.items():
                tensor = step.input_map.get(name)
                if tensor is None or tensor in made or tensor in seen:
                    continue
                seen.add(tensor)
                dims = spec.dims if self._batching else signature.full_dims(spec)
                yield tensor, (spec, (-1, *spec.dims) if tensor in settings.map else dims)

    def _is_asked_about(self, tensor: str) -> bool:
        texts = (text for each in self._settings for text in (each.when, each.return_if))
        return any(tensor in text for text in texts)

    @property
    def _batching(self) -> bool:
        return self._config.max_batch_size > 0

    def _whole(self, dims: Sequence[int]) -> Shape:
        return (-1, *dims) if self._batching else tuple(dims)

    def outputs(
        self, tensors: Mapping[str, TensorInfo], makers: Mapping[str, Sequence[int]]
    ) -> dict[str, Edge]:
        """The ensemble's outputs: all tensors that no step takes, if none is given."""
        if not self._config.output:
            used = {name for step in self._steps for name in step.input_map.values()}
            for tensor in makers:
                if tensor not in used:
                    self._config.output.add(name=tensor)
        return {
            given.name: self._output(given.name, tensors, makers) for given in self._config.output
        }

    def _output(
        self, name: str, tensors: Mapping[str, TensorInfo], makers: Mapping[str, Sequence[int]]
    ) -> Edge:
        given = next(output for output in self._config.output if output.name == name)
        role = f"output '{name}'"
        if name not in makers:
            self._refuse(role, f"is not made by any step; the steps make {sorted(makers)}")
        info = tensors[name]
        given.data_type = given.data_type or info.datatype.to_config()
        if not given.dims:
            given.dims.extend(info.dims[1:] if self._batching else info.dims)
        datatype = DataType.from_config(given.data_type)
        if datatype is not info.datatype:
            self._refuse(
                role, f"is {datatype.value}, but it is {info.datatype.value} as {info.source}"
            )
        wanted = self._whole(given.dims)
        shift = shift_between(
            info.dims, wanted, may_add=self._batching, may_drop=info.batching and not self._batching
        )
        if shift is None:
            self._refuse(
                role,
                f"has shape {list(wanted)}, but it has shape {list(info.dims)} as {info.source}",
            )
        return Edge(name, name, shift)

    def _refuse(self, role: str, why: str) -> NoReturn:
        raise InvalidConfig(f"{self._config.name}/config.pbtxt: {role} of the ensemble {why}")
