"""Programs of the system's distribution, which tests of `make check-all` run where they are.

Run as a script it names those that are missing, and fails for them with STRICT=1.
"""

import os
import shutil
import sys

import pytest

PACKAGES = {
    "buildah": "buildah",
    "chromium": "chromium",
    "h2load": "nghttp2-client",
    "prometheus": "prometheus",
    "promtool": "prometheus",
}
"""The Debian package of each."""


def program(name: str) -> str:
    """Its path. Without it the test is skipped, or fails with STRICT=1."""
    found = shutil.which(name)
    if found is None:
        do_without(missing(name))
    assert found is not None
    return found


def do_without(what: str) -> None:
    """Skips the test, which cannot be done here, or fails it with STRICT=1."""
    if is_strict():
        pytest.fail(what)
    pytest.skip(what)


def is_strict() -> bool:
    return os.environ.get("STRICT") == "1"


def missing(name: str) -> str:
    return f"{name} is not installed (Debian package {PACKAGES[name]})"


def main() -> int:
    told = [missing(name) for name in PACKAGES if shutil.which(name) is None]
    for line in told:
        print(line)
    return 1 if told and is_strict() else 0


if __name__ == "__main__":
    sys.exit(main())
