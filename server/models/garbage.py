"""What has been loaded is set apart from the garbage collector's full passes.

Requests in progress outlive two young collections and count as long-lived. So with 64 in flight the
collector makes a full pass about once a second, over every object that the process has: modules and
models are some hundred thousand, which takes 30 to 60 ms in which nobody is answered.
"""

import asyncio
import gc

YOUNG_OBJECTS = 5000
"""Made and not yet given back, before the collector looks at them. Python's 700 are fewer than 64
requests in progress have, none of which is garbage: a pass for every few of them."""
SETTLE_S = 2.0
"""Models change together: so long after the last one."""


class LoadedObjects:
    """Freezes what there is once the server has started, and again after models have changed.
    Owned by the event loop."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None
        self._is_started = False
        self._thresholds = gc.get_threshold()

    def settle(self) -> None:
        """Collects what loading has left, and freezes the rest: one full pass."""
        self._is_started = True
        self._cancel()
        # What was frozen before may have become garbage: a model that is gone.
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNG_OBJECTS, *self._thresholds[1:])

    def changed(self) -> None:
        """A model is loaded or gone."""
        if self._is_started:
            self._cancel()
            self._timer = asyncio.get_running_loop().call_later(SETTLE_S, self.settle)

    def close(self) -> None:
        """Others may use the process from now on."""
        self._is_started = False
        self._cancel()
        gc.unfreeze()
        gc.set_threshold(*self._thresholds)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
