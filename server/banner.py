"""What `trivet serve` shows on the terminal: progress while models load, then where it serves."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from trivet.backends.api.naming import key_of
from trivet.server.console.room import is_on
from trivet.server.core import Descriptions
from trivet.server.frontends import Frontends
from trivet.server.models.known import State, Status
from trivet.server.settings import Settings


class LoadProgress:
    """A bar over the first load of the repository; plain log lines where there is no terminal."""

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._progress: Progress | None = None
        self._loading: set[str] = set()

    @contextmanager
    def running(self, num_models: int) -> Iterator[None]:
        """Shows the bar while the block runs."""
        console = Console(stderr=True)
        if not (self._enabled and console.is_terminal and num_models):
            yield
            return
        columns = (
            TextColumn("loading models"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[now]}"),
        )
        with Progress(*columns, console=console, transient=True) as progress:
            progress.add_task("models", total=num_models, now="")
            self._progress = progress
            yield
        self._progress = None

    def on_status(self, name: str, version: int, status: Status) -> None:
        """Follows the lifecycle."""
        if self._progress is None:
            return
        task = self._progress.task_ids[0]
        label = f"{name} {version}"
        if status.state is State.LOADING:
            self._loading.add(label)
        else:
            self._loading.discard(label)
            self._progress.advance(task)
        self._progress.update(task, now=", ".join(sorted(self._loading)))


def print_banner(settings: Settings, frontends: Frontends, core: Descriptions) -> None:
    """Addresses, models and limits, on standard output."""
    # Texts are shown as they are: `[x]` is no style and `:x:` no picture, whose names take 1 MB.
    console = Console(markup=False, emoji=False)
    addresses = Table("service", "address", "limit")
    limits = {
        "HTTP": f"body {settings.http_max_input_size:,} bytes (--http-max-input-size)",
        "gRPC": f"message {settings.grpc_max_message_size:,} bytes (--grpc-max-message-size)",
        "metrics": "",
    }
    for service, address in frontends.addresses.items():
        addresses.add_row(service, address, limits[service])
    if is_on(settings) and "HTTP" in frontends.addresses:
        addresses.add_row("console", f"{frontends.addresses['HTTP']}/", "")
    console.print(addresses)
    models = Table("model", "version", "state", "reason")
    for row in core.index(ready_only=False):
        models.add_row(key_of(row.namespace, row.name), row.version, row.state, row.reason)
    console.print(models)
    control = settings.model_control_mode
    folders = ", ".join(map(str, settings.model_repository))
    console.print(f"model control: {control}, repository: {folders}")
    queue = settings.default_queue_size or "any number of"
    console.print(
        f"queue: {queue} requests per model where its config does not say", highlight=False
    )
