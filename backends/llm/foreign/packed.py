"""A model of transformers whose layers call our attention: one step, one flattened batch."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from trivet.backends.llm.attention.base import Attention, StepInputs
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.foreign import bridge
from trivet.backends.llm.foreign.looking import SeenLayer


class PackedModel:
    """Owned by the engine's thread."""

    is_recordable = False
    """What transformers asks of a device is not ours to say."""

    def __init__(self, model: Any, layers: Sequence[SeenLayer], attention: Attention) -> None:
        self._model = model
        self._attention = attention
        self.layers = layers
        """Its calls of the attention, in order."""
        self._layers = {layer.module: (at, layer) for at, layer in enumerate(layers)}
        self.slices = "logits_to_keep" in inspect.signature(model.forward).parameters
        """Whether the model gives the logits that are wanted alone."""
        bridge.use(model, bridge.PAGED)

    def hold(self, cache: KvCache) -> None:
        """Computes over this cache from now on."""
        self._attention.hold(cache)

    def forward(self, inputs: StepInputs) -> Tensor:
        """Logits, float32 [R, vocabulary], of `inputs.sample_rows`."""
        rows = inputs.sample_rows
        wanted = {"logits_to_keep": rows} if self.slices else {}
        self._attention.begin(inputs)
        with torch.inference_mode(), bridge.attending(self._attend):
            output = self._model(
                input_ids=inputs.token_ids.unsqueeze(0),
                position_ids=inputs.positions.unsqueeze(0),
                use_cache=False,
                **wanted,
            )
            logits: Tensor = output.logits[0]
            if not self.slices:
                logits = logits[rows]
        # Outside, for nobody else may change what is made in inference mode.
        return logits.to(torch.float32, copy=True)

    def _attend(
        self,
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,  # noqa: ARG002  # none is made
        scaling: float | None = None,
        **kwargs: Any,  # noqa: ARG002  # what `look` has seen does not change
    ) -> tuple[Tensor, None]:
        """See bridge.Attend."""
        at, layer = self._layers[module]
        size = layer.kind.head_dim
        queries, keys, values = (_tokens_first(each, size) for each in (query, key, value))
        if scaling is not None and scaling != layer.kind.scale:
            raise RuntimeError(
                f"layer {at} multiplies scores by {scaling}, and {layer.kind.scale} before"
            )
        output = self._attention.attend(at, queries, keys, values)
        if layer.value_size != size:
            output = output[..., : layer.value_size]
        return output.unsqueeze(0), None


def _tokens_first(states: Tensor, size: int) -> Tensor:
    """[1, heads, N, some size] as [N, heads, size]."""
    states = states[0].transpose(0, 1)
    if states.shape[-1] != size:
        return functional.pad(states, (0, size - states.shape[-1]))
    return states.contiguous()
