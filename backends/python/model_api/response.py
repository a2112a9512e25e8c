"""A response as user code makes it."""

import json
from collections.abc import Sequence

from trivet.backends.api import Parameters
from trivet.backends.python.model_api.errors import TritonError, TritonModelException
from trivet.backends.python.model_api.fields import NO_PARAMETERS, parameters_of
from trivet.backends.python.model_api.tensor import Tensor


class InferenceResponse:
    """The outputs of one request, or an error."""

    def __init__(
        self,
        output_tensors: Sequence[Tensor] | None = None,
        error: TritonError | None = None,
        parameters: Parameters | None = None,
    ) -> None:
        self._output_tensors = list(output_tensors or ())
        for tensor in self._output_tensors:
            if not isinstance(tensor, Tensor):
                raise TritonModelException(
                    f"output_tensors must hold pb_utils.Tensor, not {type(tensor).__name__}"
                )
        self._error = error
        self._parameters = dict(parameters or {})

    def output_tensors(self) -> list[Tensor]:
        return self._output_tensors

    def has_error(self) -> bool:
        return self._error is not None

    def error(self) -> TritonError | None:
        return self._error

    def parameters(self) -> str:
        """The response's parameters as a JSON object."""
        return json.dumps(self._parameters)

    def raw_parameters(self) -> Parameters:
        """Raises TritonModelException where a parameter cannot be sent."""
        given = self._parameters
        return parameters_of(given, "response parameters") if given else NO_PARAMETERS


def get_output_tensor_by_name(inference_response: InferenceResponse, name: str) -> Tensor | None:
    """The output of that name, or None."""
    for tensor in inference_response.output_tensors():
        if tensor.name() == name:
            return tensor
    return None
