"""What a batch's tensors are as rows of a table: one matrix, or a column for each tensor."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trivet.backends.api import Batch, DataType, InvalidConfig, LoadFailed, Signature, TensorSpec
from trivet.backends.api.texts import gather_text


@dataclass(frozen=True, slots=True)
class Rows:
    """How rows are put together from the inputs of a signature."""

    specs: tuple[TensorSpec, ...]
    """In the table's order."""
    framework: str
    """For errors about texts."""
    is_frame: bool
    """Whether the model takes named columns."""

    @classmethod
    def of(cls, signature: Signature, column_names: Sequence[str], framework: str) -> "Rows":
        """Columns, where the inputs have the names of the model's; else one tensor. Raises
        InvalidConfig, LoadFailed without pandas."""
        specs = signature.inputs
        is_frame = bool(specs) and set(specs) == set(column_names)
        if is_frame:
            _check_pandas(framework)
            return cls(tuple(specs[name] for name in column_names), framework, is_frame=True)
        named = list(column_names)
        if len(specs) != 1:
            raise InvalidConfig(
                f"the config has the inputs {sorted(specs)}, but the model takes one tensor of all "
                "features" + (f", or one for each of its columns {named}" if named else "")
            )
        return cls(tuple(specs.values()), framework, is_frame=False)

    def gather(self, batch: Batch) -> object:
        """A pandas.DataFrame or an array. A request with a text that is no UTF-8 fails alone."""
        return self.joined([self._values(batch, spec) for spec in self.specs])

    def probe(self) -> object:
        """One row of zeros, or of empty texts."""
        return self.joined([_zeros(spec) for spec in self.specs])

    def joined(self, values: Sequence[np.ndarray]) -> object:
        """The inputs' values as what the model takes."""
        if not self.is_frame:
            # A vectoriser takes a list of texts, not a matrix.
            is_text = self.specs[0].datatype is DataType.BYTES and self.specs[0].dims in ((), (1,))
            return values[0].reshape(-1) if is_text else values[0].reshape(len(values[0]), -1)
        import pandas as pd

        columns = (each.reshape(-1) for each in values)
        names = (spec.name for spec in self.specs)
        return pd.DataFrame(dict(zip(names, columns, strict=True)))

    def _values(self, batch: Batch, spec: TensorSpec) -> np.ndarray:
        is_text = spec.datatype is DataType.BYTES
        found = (
            gather_text(batch, spec.name, self.framework) if is_text else batch.gather(spec.name)
        )
        assert found is not None, "all inputs are required"
        return found


def _zeros(spec: TensorSpec) -> np.ndarray:
    shape = (1, *(1 if size < 0 else size for size in spec.dims))
    if spec.datatype is DataType.BYTES:
        return np.full(shape, "", dtype=object)
    return np.zeros(shape, dtype=spec.datatype.dtype)


def _check_pandas(framework: str) -> None:
    from importlib.util import find_spec

    if find_spec("pandas") is None:
        raise LoadFailed(
            f"a {framework} model with an input for each column needs the package 'pandas', which "
            "is not installed: pip install pandas"
        )
