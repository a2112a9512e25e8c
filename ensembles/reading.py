"""From an ensemble's config to its graph: every fault is found at load and named. Pure."""

from collections.abc import Mapping, Sequence
from typing import NoReturn

from trivet.backends.api import (
    Catalog,
    DataType,
    InvalidConfig,
    ServingError,
    Shape,
    Signature,
    TensorSpec,
)
from trivet.backends.api.naming import namespace_in
from trivet.ensembles.condition import Condition, parse_condition
from trivet.ensembles.dimensions import element_dims, gathered_dims, shift_between
from trivet.ensembles.fields import check_fields
from trivet.ensembles.graph import Edge, Graph, Step, TensorInfo
from trivet.ensembles.interface import Interface
from trivet.ensembles.order import check_levels, order_steps, steps_before
from trivet.ensembles.settings import step_settings
from trivet.protos.model_config_pb2 import ModelConfig, ModelEnsembling


def read_graph(config: ModelConfig, catalog: Catalog) -> Graph:
    """The graph of an ensemble whose steps' models serve.

    Inputs and outputs that the config leaves out are filled in. Raises InvalidConfig naming file,
    step and tensor; a ServingError of the catalog becomes one too.
    """
    return _Reader(config, catalog).read()


class _Reader:
    """Holds what is known so far; `read` calls the rest in order."""

    def __init__(self, config: ModelConfig, catalog: Catalog) -> None:
        check_fields(config)
        self._config = ModelConfig()
        self._config.CopyFrom(config)
        self._catalog = catalog
        self._where = f"{config.name}/config.pbtxt"
        self._given = list(config.ensemble_scheduling.step)
        self._settings = step_settings(config, self._where)
        self._tensors: dict[str, TensorInfo] = {}
        self._models: list[str] = []
        """By step: what the server knows its model by."""

    def read(self) -> Graph:
        signatures = [self._signature(i, step) for i, step in enumerate(self._given)]
        for number, signature in enumerate(signatures):
            self._check_maps(number, signature)
        self._own = Interface(self._config, signatures, self._settings)
        self._tensors = self._own.inputs()
        self._check_batch_sizes(signatures)
        makers = self._makers()
        self._check_sources(makers)
        needs = [self._needs(number) for number in range(len(self._given))]
        order = order_steps(needs, makers, self._titles(), self._where)
        steps: dict[int, Step] = {}
        for number in order:
            steps[number] = self._step(number, signatures[number], makers)
        for step in steps.values():
            self._check_fallback(step)
        in_order = tuple(steps[number] for number in range(len(self._given)))
        outputs = self._own.outputs(self._tensors, makers)
        in_order = check_levels(in_order, makers, order, outputs, self._where)
        if any(step.signature.decoupled for step in in_order):
            self._config.model_transaction_policy.decoupled = True
        signature = Signature.from_config(self._config)
        most = self._config.ensemble_scheduling.max_inflight_requests
        parts = [self._parts(step) for step in in_order]
        shared = frozenset(
            step.number
            for step, own in zip(in_order, parts, strict=True)
            if any(own & other for other in parts if other is not own)
        )
        everything = frozenset[str]().union(*parts)
        return Graph(self._config, signature, in_order, makers, outputs, most, shared, everything)

    def _parts(self, step: Step) -> frozenset[str]:
        return frozenset[str]().union(*map(self._catalog.parts, self._asked_by(step)))

    def _asked_by(self, step: Step) -> set[str]:
        fallback = step.settings.fallback
        return {step.model, self._find(step.number, fallback)} if fallback else {step.model}

    # -- steps ---------------------------------------------------------------------------------

    def _title(self, number: int) -> str:
        return f"step {number} (model '{self._given[number].model_name}')"

    def _titles(self) -> list[str]:
        return [self._title(number) for number in range(len(self._given))]

    def _refuse(self, number: int, why: str) -> NoReturn:
        raise InvalidConfig(f"{self._where}: {self._title(number)}: {why}")

    def _signature(self, number: int, step: ModelEnsembling.Step) -> Signature:
        if not step.model_name:
            self._refuse(number, "model_name is missing")
        model = self._find(number, step.model_name, step.model_namespace)
        if model == self._find(number, self._config.name):
            self._refuse(number, "an ensemble cannot be a step of itself")
        self._models.append(model)
        if model != step.model_name:
            # As Triton's shows it: where it was found.
            step.model_namespace = namespace_in(model)
        if step.model_version == 0 or step.model_version < -1:
            # 0 is what the field holds when it is left out.
            step.model_version = -1
        return self._look_up(number, model, version_of(step))

    def _find(self, number: int, name: str, namespace: str = "") -> str:
        try:
            return self._catalog.find(name, namespace)
        except ServingError as error:
            self._refuse(number, error.message)

    def _look_up(self, number: int, name: str, version: int | None) -> Signature:
        try:
            return self._catalog.signature(name, version)
        except ServingError as error:
            which = f"'{name}'" if version is None else f"'{name}' version {version}"
            self._refuse(number, f"model {which} does not serve: {error.message}")

    def _check_maps(self, number: int, signature: Signature) -> None:
        step = self._given[number]
        for role, mapped, known in (
            ("input", step.input_map, signature.inputs),
            ("output", step.output_map, signature.outputs),
        ):
            for name, tensor in sorted(mapped.items()):
                if name not in known:
                    self._refuse(
                        number,
                        f"{role}_map has '{name}', but the model's {role}s are {list(known)}",
                    )
                if not tensor:
                    self._refuse(number, f"{role}_map of '{name}' names no ensemble tensor")
        missing = sorted(signature.required_inputs - step.input_map.keys())
        if missing:
            self._refuse(number, f"input_map lacks the model's required inputs {missing}")
        if not step.output_map:
            self._refuse(number, "output_map is missing; without one the step is of no use")
        made = list(step.output_map.values())
        for tensor in made:
            if made.count(tensor) > 1:
                self._refuse(number, f"output_map makes ensemble tensor '{tensor}' twice")
        for tensor in self._settings[number].map:
            if tensor not in step.input_map.values():
                self._refuse(number, f"map names '{tensor}', which is not in its input_map")
        if self._settings[number].map and signature.decoupled:
            self._refuse(number, "map needs one answer per element, and the model is decoupled")

    def _needs(self, number: int) -> frozenset[str]:
        """The tensors that the step waits for, read before the condition's types are known."""
        text = self._settings[number].when
        found = self._condition(number, "when", text, self._all_names()) if text else None
        tensors = frozenset(self._given[number].input_map.values())
        return tensors | found.tensors if found is not None else tensors

    def _all_names(self) -> dict[str, DataType]:
        """Every tensor name; types are checked when the step is made."""
        made = (name for step in self._given for name in step.output_map.values())
        return {**dict.fromkeys(made, DataType.FP32), **dict.fromkeys(self._tensors, DataType.FP32)}

    def _condition(
        self, number: int, name: str, text: str, datatypes: Mapping[str, DataType]
    ) -> Condition | None:
        where = f"{self._where}: {self._title(number)}: {name}"
        return parse_condition(text, datatypes, where) if text else None

    def _makers(self) -> dict[str, tuple[int, ...]]:
        makers: dict[str, tuple[int, ...]] = {}
        for number, step in enumerate(self._given):
            for tensor in step.output_map.values():
                if tensor in self._tensors:
                    self._refuse(
                        number, f"output_map makes '{tensor}', which is an input of the ensemble"
                    )
                for other in makers.get(tensor, ()):
                    if not self._settings[other].when:
                        self._refuse(
                            number,
                            f"output_map makes '{tensor}', which {self._title(other)} makes; "
                            "two steps may make the same tensor only if the earlier has a `when`",
                        )
                makers[tensor] = (*makers.get(tensor, ()), number)
        return makers

    def _check_sources(self, makers: Mapping[str, Sequence[int]]) -> None:
        for number, step in enumerate(self._given):
            for name, tensor in sorted(step.input_map.items()):
                if tensor not in makers and tensor not in self._tensors:
                    self._refuse(
                        number,
                        f"input '{name}' takes '{tensor}', which no step makes and which is no "
                        "input of the ensemble",
                    )

    def _step(
        self,
        number: int,
        signature: Signature,
        makers: Mapping[str, tuple[int, ...]],
    ) -> Step:
        given, settings = self._given[number], self._settings[number]
        inputs = self._input_edges(number, signature)
        when = self._condition(number, "when", settings.when, self._datatypes())
        list_dims = self._list_dims(number)
        outputs = []
        for name, tensor in sorted(given.output_map.items()):
            spec = signature.outputs[name]
            info = self._made(number, signature, spec, list_dims)
            self._remember(number, name, tensor, info)
            outputs.append(Edge(name, tensor))
        return_if = self._condition(number, "return_if", settings.return_if, self._datatypes())
        return Step(
            number,
            self._models[number],
            version_of(given),
            signature,
            inputs,
            tuple(outputs),
            settings,
            when,
            return_if,
            steps_before(number, given.output_map.values(), makers),
        )

    def _datatypes(self) -> dict[str, DataType]:
        return {name: info.datatype for name, info in self._tensors.items()}

    def _input_edges(self, number: int, signature: Signature) -> tuple[Edge, ...]:
        edges = []
        for name, tensor in self._given[number].input_map.items():
            spec, info = signature.inputs[name], self._tensors[tensor]
            dims = info.dims
            if tensor in self._settings[number].map:
                dims = self._element_dims(number, tensor, signature)
            shift = self._fit(
                number, f"input '{name}'", tensor, (info.datatype, dims), signature, spec
            )
            edges.append(Edge(name, tensor, shift))
        # In the model's order, so that requests of all clients look alike to its batcher.
        position = {name: index for index, name in enumerate(signature.inputs)}
        return tuple(sorted(edges, key=lambda edge: position[edge.name]))

    def _element_dims(self, number: int, tensor: str, signature: Signature) -> Shape:
        info = self._tensors[tensor]
        dims = element_dims(info.dims, batching=self._batching)
        if dims is None:
            self._refuse(
                number, f"map goes over '{tensor}' of shape {list(info.dims)}, which is no list"
            )
        return (1, *dims) if signature.batching else dims

    def _list_dims(self, number: int) -> Shape:
        """The leading dimensions of what a mapped step makes; () for others."""
        mapped = self._settings[number].map
        return (
            gathered_dims(self._tensors[mapped[0]].dims, batching=self._batching) if mapped else ()
        )

    def _fit(
        self,
        number: int,
        role: str,
        tensor: str,
        has: tuple[DataType, Shape],
        signature: Signature,
        spec: TensorSpec,
    ) -> int:
        datatype, dims = has
        source = self._tensors[tensor].source
        if datatype is not spec.datatype:
            self._refuse(
                number,
                f"{role} is {spec.datatype.value}, but ensemble tensor '{tensor}' is "
                f"{datatype.value} ({source})",
            )
        shift = shift_between(
            dims,
            signature.full_dims(spec),
            may_add=signature.batching,
            may_drop=self._tensors[tensor].batching and not signature.batching,
        )
        if shift is None:
            self._refuse(
                number,
                f"{role} has shape {list(signature.full_dims(spec))}, but ensemble tensor "
                f"'{tensor}' has shape {list(dims)} ({source})",
            )
        return shift

    def _made(
        self, number: int, signature: Signature, spec: TensorSpec, list_dims: Shape
    ) -> TensorInfo:
        dims = (*list_dims, *spec.dims) if list_dims else signature.full_dims(spec)
        source = f"output '{spec.name}' of {self._title(number)}"
        batching = self._batching if list_dims else signature.batching
        return TensorInfo(spec.datatype, dims, batching, source)

    def _remember(self, number: int, name: str, tensor: str, info: TensorInfo) -> None:
        other = self._tensors.setdefault(tensor, info)
        if other.datatype is not info.datatype or shift_between(info.dims, other.dims) != 0:
            self._refuse(
                number,
                f"output '{name}' makes '{tensor}' as {info.datatype.value} {list(info.dims)}, but "
                f"it is {other.datatype.value} {list(other.dims)} as {other.source}",
            )

    def _check_fallback(self, step: Step) -> None:
        name = step.settings.fallback
        if not name:
            return
        if name == self._config.name:
            self._refuse(step.number, "an ensemble cannot be the fallback of its own step")
        signature = self._look_up(step.number, name, None)
        if signature.decoupled != step.signature.decoupled or not _replaces(
            signature, step, step.signature
        ):
            self._refuse(
                step.number,
                f"fallback '{name}' does not take and give the same tensors as '{step.model}'",
            )

    @property
    def _batching(self) -> bool:
        return self._config.max_batch_size > 0

    def _check_batch_sizes(self, signatures: Sequence[Signature]) -> None:
        most = self._config.max_batch_size
        for number, signature in enumerate(signatures):
            if 0 < signature.max_batch_size < most:
                self._refuse(
                    number,
                    f"ensemble '{self._config.name}' allows maximum batch size {most}, but model "
                    f"'{self._given[number].model_name}' only allows {signature.max_batch_size}",
                )


def version_of(step: ModelEnsembling.Step) -> int | None:
    """The version that a step asks for; None is the newest."""
    return step.model_version if step.model_version > 0 else None


def _replaces(signature: Signature, step: Step, replaced: Signature) -> bool:
    """Whether a model can stand in for a step's."""
    mine, theirs = signature.inputs, replaced.inputs
    named = {edge.name for edge in step.inputs}
    return (
        signature.batching == replaced.batching
        and signature.max_batch_size >= replaced.max_batch_size
        and signature.required_inputs <= named <= mine.keys()
        and all(_alike(mine[name], theirs[name]) for name in named)
        and all(
            edge.name in signature.outputs
            and _alike(signature.outputs[edge.name], replaced.outputs[edge.name])
            for edge in step.outputs
        )
    )


def _alike(one: TensorSpec, other: TensorSpec) -> bool:
    return one.datatype is other.datatype and shift_between(one.dims, other.dims) == 0
