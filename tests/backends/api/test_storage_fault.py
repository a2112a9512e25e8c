"""Faults of a disk are told from faults of the files on it, however they are wrapped."""

import errno
import os
from pathlib import Path

import pytest

from trivet.backends.api import (
    InvalidConfig,
    LoadFailed,
    ServingError,
    UnreadableFiles,
    judged,
    storage_fault,
    storage_fault_below,
)

WORDS = os.strerror(errno.EIO)
FOLDER = Path("/models/m")


def fault() -> OSError:
    return OSError(errno.EIO, WORDS, "/models/m/1/model.onnx")


def wrapped(*, hides: bool = False) -> ServingError:
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
        wrapped(),
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
        wrapped(hides=True),
        LoadFailed(f"the model's process says: {WORDS}"),
        RuntimeError(os.strerror(errno.ETIMEDOUT)),
    ],
)
def test_a_fault_of_the_files_is_none(error: BaseException) -> None:
    assert storage_fault(error) == ""


@pytest.mark.parametrize("length", [1, 2, 3])
def test_errors_that_are_their_own_causes_are_looked_at_once(length: int) -> None:
    errors = [ValueError(f"number {index}") for index in range(length)]
    for index, error in enumerate(errors):
        error.__cause__ = errors[index - 1]
    assert storage_fault(errors[0]) == ""
    assert storage_fault_below(FOLDER, errors[0]) == ""


@pytest.mark.parametrize(
    "file", [FOLDER / "1" / "weights.bin", b"/models/m/1/weights.bin", "/models/m/1/../weights.bin"]
)
def test_of_own_code_faults_of_the_models_files_count(file: object) -> None:
    error = PermissionError(errno.EACCES, "Permission denied", file)
    assert storage_fault_below(FOLDER, error) == "Permission denied"


@pytest.mark.parametrize("file", [3, "/run/secrets/key", "/models/m/../key", "/models/m2/key"])
def test_of_own_code_faults_of_other_files_do_not_count(file: object) -> None:
    assert storage_fault_below(FOLDER, PermissionError(errno.EACCES, "no", file)) == ""
    assert storage_fault_below(FOLDER, OSError(errno.EIO, WORDS, file)) == ""


def test_of_own_code_a_read_that_fails_counts_and_a_connection_or_words_do_not() -> None:
    assert storage_fault_below(FOLDER, OSError(errno.EIO, WORDS)) == WORDS
    assert storage_fault_below(FOLDER, TimeoutError(errno.ETIMEDOUT, "timed out")) == ""
    assert storage_fault_below(FOLDER, RuntimeError(WORDS)) == ""


def test_who_is_told_without_the_cause_is_told_the_kind() -> None:
    assert type(judged(wrapped())) is UnreadableFiles
    assert judged(wrapped()).message == wrapped().message
    other = LoadFailed(WORDS)
    assert judged(other) is other
    unreadable = UnreadableFiles("it cannot be read")
    assert judged(unreadable) is unreadable
