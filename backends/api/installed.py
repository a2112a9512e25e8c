"""Whether a framework is there, for backends that leave importing it to another process."""

from importlib.util import find_spec


def require_installed(package: str) -> None:
    """Raises the ModuleNotFoundError that importing the package would, and imports nothing."""
    if find_spec(package) is None:
        raise ModuleNotFoundError(f"No module named '{package}'", name=package)
