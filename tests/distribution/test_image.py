"""The image is built from docker/Dockerfile, and what is in it serves."""

import subprocess
from collections.abc import Iterator

import pytest
from house_rules import ROOT
from programs import do_without, program

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
NAME = "localhost/trivet-under-test"


def buildah(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [program("buildah"), "--storage-driver=vfs", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def container() -> Iterator[str]:
    """One of the image, with the smallest extra."""
    if buildah("pull", "debian:bookworm-slim").returncode:
        do_without("no registry gives out debian:bookworm-slim")
    flags = ("--isolation=chroot", "--build-arg=EXTRAS=onnx", f"--tag={NAME}")
    built = buildah("build", *flags, "-f", "docker/Dockerfile", ".")
    assert built.returncode == 0, built.stdout[-4000:] + built.stderr[-4000:]
    made = buildah("from", "--pull-never", NAME)
    assert made.returncode == 0, made.stderr
    yield made.stdout.strip()
    buildah("rm", made.stdout.strip())
    buildah("rmi", NAME)


@pytest.mark.parametrize("command", [["trivet", "--version"], ["trivet", "serve", "--help"]])
def test_what_the_image_holds_runs(container: str, command: list[str]) -> None:
    done = buildah("run", "--isolation=chroot", container, "--", *command)
    assert done.returncode == 0, done.stderr
    assert "trivet" in done.stdout
