"""The config's `reshape`: between the shape clients use and the one the model sees. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from trivet.backends.api import BackendFailed, Shape, Signature, Tensor, TensorSpec


def matched(shape: Shape, dims: Shape, wanted: Shape) -> Shape:
    """`wanted` with its -1 replaced, in order, by what stands for the -1 of `dims` in `shape`."""
    variable = iter(size for size, dim in zip(shape, dims, strict=True) if dim == -1)
    return tuple(next(variable) if dim == -1 else dim for dim in wanted)


@dataclass(frozen=True, slots=True)
class Reshape:
    """The reshapes of one model."""

    input_specs: dict[str, TensorSpec]
    output_specs: dict[str, TensorSpec]
    batching: bool

    @classmethod
    def of(cls, signature: Signature) -> Self | None:
        """None for the usual model, which has none."""
        inputs = {name: spec for name, spec in signature.inputs.items() if spec.is_reshaped}
        outputs = {name: spec for name, spec in signature.outputs.items() if spec.is_reshaped}
        return cls(inputs, outputs, signature.batching) if inputs or outputs else None

    def inputs(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Checked inputs as views in the model's shape."""
        return {
            name: self._reshaped(tensor, spec.dims, spec.model_dims)
            if (spec := self.input_specs.get(name)) is not None
            else tensor
            for name, tensor in tensors.items()
        }

    def outputs(self, tensors: list[Tensor]) -> list[Tensor]:
        """The model's outputs in the shape clients expect. Raises BackendFailed for one that is not
        in the model's."""
        return [
            self._output(tensor, spec)
            if (spec := self.output_specs.get(tensor.name)) is not None
            else tensor
            for tensor in tensors
        ]

    def _output(self, tensor: Tensor, spec: TensorSpec) -> Tensor:
        try:
            return self._reshaped(tensor, spec.model_dims, spec.dims)
        except ValueError:
            head = "a batch of " if self.batching else ""
            raise BackendFailed(
                f"output '{tensor.name}' has shape {list(tensor.shape)}; the model configuration "
                f"(reshape) says {head}{list(spec.model_dims)}"
            ) from None

    def _reshaped(self, tensor: Tensor, dims: Shape, wanted: Shape) -> Tensor:
        head = tensor.shape[:1] if self.batching else ()
        return tensor.renamed(tensor.name, head + matched(tensor.shape[len(head) :], dims, wanted))
