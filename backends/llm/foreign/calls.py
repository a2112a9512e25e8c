"""How a model of transformers calls its modules, seen while it computes, and what they return."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trivet.backends.llm.adapters.bank import AdapterBank
from trivet.backends.llm.foreign import bridge
from trivet.backends.llm.foreign.checking import make_prompts
from trivet.backends.llm.foreign.faults import FAULTS
from trivet.backends.llm.foreign.looking import SeenLayer
from trivet.backends.llm.native.alone_attention import NativeAttention

_DIMENSIONS = 3
"""[1, tokens, size]: of cosines and sines."""
Compute = Callable[[Tensor, Tensor | None, Tensor | None], Tensor]
"""Of states, and of cosines and sines where there is a rotation."""


@dataclass(frozen=True, slots=True)
class Call:
    """Of a module that reads the states of a step."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def states(self) -> Tensor | None:
        """That it reads."""
        given = self.args[0] if self.args else self.kwargs.get("hidden_states")
        return given if isinstance(given, Tensor) else None

    @property
    def turns(self) -> tuple[Tensor, Tensor] | None:
        """Cosines and sines of its tokens, where they are such as the compiled step reads."""
        given = self.kwargs.get("position_embeddings")
        if not isinstance(given, tuple) or len(given) != len(("cosines", "sines")):
            return None
        is_read = all(
            isinstance(each, Tensor) and each.dtype == torch.bfloat16 and each.dim() == _DIMENSIONS
            for each in given
        )
        return given if is_read else None

    def of(self, states: Tensor) -> "Call":
        """The same of others."""
        if self.args:
            return Call((states, *self.args[1:]), self.kwargs)
        return Call((), {**self.kwargs, "hidden_states": states})


@dataclass(frozen=True, slots=True)
class Returned:
    """States, alone or with nothing behind them."""

    states: Tensor
    num_nones: int
    """Behind them; -1: they are alone."""

    @classmethod
    def of(cls, returned: Any) -> "Returned | None":
        """None where it is something else."""
        states, *others = returned if isinstance(returned, tuple) else (returned,)
        if not isinstance(states, Tensor) or any(each is not None for each in others):
            return None
        return cls(states, len(others) if isinstance(returned, tuple) else -1)


def calls_of(
    model: Any, layers: Sequence[SeenLayer], modules: Iterable[nn.Module], max_positions: int
) -> dict[nn.Module, Call]:
    """Of tokens near and far: there the model's own rotation shows, and what else depends on it.
    `layers`: which call the attention interface, that finds nothing meanwhile."""
    prompt = make_prompts(model.config.get_text_config(decoder=True).vocab_size)[0]
    places = torch.arange(len(prompt))
    places[len(prompt) // 2 :] += max(0, max_positions - len(prompt))
    calls: dict[nn.Module, Call] = {}

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls[module] = Call(args, kwargs)

    sizes = {layer.module: layer.value_size for layer in layers}
    hooks = [each.register_forward_pre_hook(note, with_kwargs=True) for each in modules]
    try:
        with bridge.attending(lambda module, query, *_, **__: (_zeros(query, sizes[module]), None)):
            model(input_ids=prompt[None], position_ids=places[None], use_cache=False)
    except FAULTS:
        return {}
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def _zeros(query: Tensor, size: int) -> Tensor:
    batch, heads, tokens, _ = query.shape
    return query.new_zeros(batch, tokens, heads, size)


def stand_in(
    module: Any,
    compute: Compute,
    attention: NativeAttention,
    adapters: AdapterBank | None,
    *,
    is_turned: bool,
    num_nones: int,
) -> None:
    """Has a module computed so from now on, where no adapter changes it. What else it is called
    with than all tokens of a step is its own affair."""
    own = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        states = args[0] if args else kwargs["hidden_states"]
        is_adapted = adapters is not None and adapters.step is not None
        if is_adapted or states.shape[:2] != (1, attention.step.tokens):
            return own(*args, **kwargs)
        cosines = sines = None
        if is_turned:
            cosines, sines = (each.contiguous() for each in kwargs["position_embeddings"])
        made = compute(states, cosines, sines)
        return made if num_nones < 0 else (made, *(None,) * num_nones)

    module.forward = forward
