"""Which addresses of repositories there are, and who opens each. Imports a client library when an
address asks for it."""

from importlib import import_module
from typing import cast

from trivet.server.remote.source import OpenSource, RemoteError, Source
from trivet.server.settings import Settings

SCHEMES = {
    "s3": ("buckets", "open_bucket", "remote"),
    "gs": ("buckets", "open_bucket", "remote"),
    "as": ("buckets", "open_bucket", "remote"),
    "hf": ("hub", "open_hub", "remote"),
    "mlflow": ("registry", "open_registry", "mlflow"),
    "pypi": ("packages", "open_package", "remote"),
}
"""By scheme: the module here, its OpenSource, and the extra that installs what it imports."""


def open_source(address: str, settings: Settings) -> Source:
    """The source of an address. Raises RemoteError."""
    scheme = address.partition("://")[0]
    if scheme not in SCHEMES:
        raise RemoteError(
            # The rest may hold a password.
            f"model repository '{scheme}://...': '{scheme}://' is not known; there are folders and "
            f"{', '.join(f'{each}://' for each in SCHEMES)}"
        )
    module, function, extra = SCHEMES[scheme]
    try:
        opens = getattr(import_module(f"trivet.server.remote.{module}"), function)
        return cast("OpenSource", opens)(address, settings)  # SCHEMES says what it names
    except ModuleNotFoundError as missing:
        if missing.name and missing.name.startswith("trivet"):
            raise
        raise RemoteError(
            f"{scheme}:// needs the package '{missing.name}', which is not installed: pip install "
            f"'trivet[{extra}]'"
        ) from None
