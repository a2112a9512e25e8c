"""Faults of a disk are told from faults of the files on it, however they are wrapped."""

import errno
import os

import pytest

from trivet.backends.api import InvalidConfig, LoadFailed, storage_fault

WORDS = os.strerror(errno.EIO)


def fault() -> OSError:
    return OSError(errno.EIO, WORDS, "/models/m/1/model.onnx")


def wrapped(*, hides: bool) -> BaseException:
    """What a backend makes of it."""
    try:
        try:
            raise fault()
        except OSError as error:
            raise InvalidConfig("it cannot be read") from (None if hides else error)
    except InvalidConfig as error:
        return error


@pytest.mark.parametrize(
    "error",
    [
        fault(),
        wrapped(hides=True),
        wrapped(hides=False),
        LoadFailed(f"the model's process says: {WORDS}"),
        RuntimeError(f"[ONNXRuntimeError] : system error number 5 : {WORDS}"),
    ],
)
def test_a_fault_of_the_disk_is_known_by_its_number_or_its_words(error: BaseException) -> None:
    assert storage_fault(error) == WORDS


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file or directory", "model.onnx"),
        LoadFailed("'model.onnx' is not an ONNX model; it is an empty file"),
        ValueError("a number is missing"),
    ],
)
def test_a_fault_of_the_files_is_none(error: BaseException) -> None:
    assert storage_fault(error) == ""
