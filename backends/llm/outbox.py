"""What an engine has to tell, kept until its step is over: one message for all of it."""

from collections.abc import Callable

from trivet.backends.llm.messages import Message, Output, Outputs


class Outbox:
    """Owned by the engine's thread."""

    def __init__(
        self, send: Callable[[Message], None], stats: Callable[[], dict[str, float]]
    ) -> None:
        """`stats`: the engine's state, told with each message."""
        self._send = send
        self._stats = stats
        self.outputs: list[Output] = []
        """At most one of each request: a message has no order."""
        self.tokens: list[tuple[str, int]] = []
        self.steps: list[tuple[int, int]] = []
        self.preempted: list[str] = []

    def flush(self) -> None:
        """Sends what there is, if there is anything."""
        if self.outputs or self.tokens or self.steps or self.preempted:
            message = Outputs(self.outputs, self._stats(), self.tokens, self.steps, self.preempted)
            self.outputs, self.tokens, self.steps, self.preempted = [], [], [], []
            self._send(message)
