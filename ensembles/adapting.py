"""Tensors on the way from model to model: other names, other leading dimensions, no copies."""

from trivet.backends.api import InvalidRequest, PackedBytes, Shape, Tensor
from trivet.ensembles.graph import Edge


def adapted(tensor: Tensor, edge: Edge, name: str) -> Tensor:
    """The tensor at the other end of an edge, on the same memory. Raises InvalidRequest."""
    if edge.shift == 0:
        return tensor if tensor.name == name else tensor.under(name)
    if edge.shift == 1:
        return tensor.renamed(name, (1, *tensor.shape))
    if tensor.shape[:1] != (1,):
        raise InvalidRequest(
            f"ensemble tensor '{edge.tensor}' has a batch of {tensor.shape[0]}, and '{edge.name}' "
            "takes no batches: only a batch of 1 can go on"
        )
    return tensor.renamed(name, tensor.shape[1:])


def elements(tensor: Tensor, num_lists: int, name: str, *, batching: bool) -> list[Tensor]:
    """The elements of a list (after `num_lists` leading dimensions), as views in order.

    Each has a batch dimension of 1 if `batching`.
    """
    dims = tensor.shape[num_lists:]
    count = _product(tensor.shape[:num_lists])
    shape = (1, *dims) if batching else dims
    if isinstance(tensor.data, PackedBytes):
        size = _product(dims)
        parts = (tensor.data.slice(i * size, (i + 1) * size) for i in range(count))
        return [Tensor(name, tensor.datatype, shape, part) for part in parts]
    flat = tensor.data.reshape((count, *dims))
    made = []
    for index in range(count):
        rows = flat[index : index + 1]
        part = Tensor(name, tensor.datatype, shape, rows if batching else rows.reshape(shape))
        part.rows = (flat, index)
        made.append(part)
    return made


def _product(shape: Shape) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
