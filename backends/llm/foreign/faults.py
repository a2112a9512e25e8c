"""What code of transformers raises for a model, a file or a step that it was not made for."""

FAULTS = (
    ArithmeticError, AssertionError, AttributeError, ImportError, IndexError, KeyError,
    NotImplementedError, OSError, RuntimeError, TypeError, ValueError,
)  # fmt: skip
"""Memory that does not suffice is a RuntimeError of torch's."""
