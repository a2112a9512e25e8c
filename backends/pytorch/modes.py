"""PyTorch's modes, which belong to a thread: set anew around each batch."""

from contextlib import AbstractContextManager, ExitStack

import torch
from torch.jit._fuser import optimized_execution  # torch.jit's own name is not typed

from trivet.backends.pytorch.parameters import PyTorchParameters


def modes(parameters: PyTorchParameters) -> AbstractContextManager[object]:
    """Those that a model's parameters ask for."""
    mode = torch.inference_mode() if parameters.inference_mode else torch.no_grad()
    if parameters.optimized_execution and parameters.use_cudnn:
        return mode
    stack = ExitStack()
    stack.enter_context(mode)
    if not parameters.optimized_execution:
        stack.enter_context(optimized_execution(should_optimize=False))
    if not parameters.use_cudnn:
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))
    return stack
