"""Errors carry what was found and what to do, also through pickle and as FileNotFoundError."""

import pickle

import pytest

from raygenome.errors import (
    DataError,
    NoInput,
    OutputError,
    PartialFailure,
    RaygenomeError,
    StorageError,
    UsageError,
)

CODES = {
    UsageError: 2,
    DataError: 65,
    NoInput: 66,
    OutputError: 73,
    StorageError: 74,
    PartialFailure: 75,
}


@pytest.mark.parametrize("kind", CODES)
def test_both_fields_make_one_line(kind: type[RaygenomeError]) -> None:
    error = kind("there is no file x.vcf", "check the path")
    assert str(error) == "there is no file x.vcf; check the path"
    assert (error.found, error.do) == ("there is no file x.vcf", "check the path")
    assert str(kind("nothing more to say")) == "nothing more to say"
    assert error.exit_code == CODES[kind]


@pytest.mark.parametrize("kind", CODES)
def test_an_error_survives_pickle(kind: type[RaygenomeError]) -> None:
    error = pickle.loads(pickle.dumps(kind("found", do="do")))
    assert (type(error), error.found, error.do) == (kind, "found", "do")


def test_a_missing_input_is_a_file_not_found_error_without_an_errno() -> None:
    error = NoInput("there is no file x", "check the path")
    assert isinstance(error, FileNotFoundError)
    assert (error.errno, error.strerror) == (None, None)
