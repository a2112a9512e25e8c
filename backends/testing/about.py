"""What the small backends say of themselves. They have no files: configs or names ask for them."""

from trivet.backends.api import About

IDENTITY = About(
    word="identity",
    backend="trivet.backends.testing.identity:BACKEND",
    fields=(),
    parameters=("execute_delay_ms", "fail_with", "instance_wise_delay_multiplier"),
)
REPEAT = About(
    word="repeat", backend="trivet.backends.testing.repeat:BACKEND", fields=(), parameters=()
)
SQUARE = About(
    word="square", backend="trivet.backends.testing.square:BACKEND", fields=(), parameters=()
)
