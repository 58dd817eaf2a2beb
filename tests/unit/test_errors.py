from __future__ import annotations

import inspect
import pickle

import pytest

from lmdistill import errors

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, errors.LmdistillError)]
MADE = [
    errors.ConfigError(["a", "b"]),
    errors.DataError("is bad", path="x.csv", line=3),
    errors.StoreError("no room"),
    errors.TeacherError("gone"),
    errors.BudgetReached("spent"),
    errors.TrainingError("nan"),
    errors.UnknownName("task", "smvap", ["svamp"]),
    errors.MissingExtra("bm25s", "search", "retriever 'bm25'"),
    errors.PartlyDone("3 of 5"),
]


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = (errors.__doc__ or "").split()
    for cls in CLASSES:
        assert cls.__name__ in drawn
        standard = [base.__name__ for base in cls.__bases__ if not issubclass(base, errors.LmdistillError)]
        assert all(f"({name})" in drawn for name in standard if name != "Exception")
    assert {type(one) for one in MADE} == set(CLASSES) - {errors.LmdistillError}


@pytest.mark.parametrize("error", MADE, ids=lambda error: type(error).__name__)
def test_errors_have_a_code_and_a_message(error: errors.LmdistillError) -> None:
    assert error.exit_code in (2, 3, 4, 5)
    assert str(error)
    assert "\n" not in str(error) or isinstance(error, errors.ConfigError)


def test_exit_codes() -> None:
    assert errors.ConfigError("x").exit_code == errors.DataError("x").exit_code == 2
    assert errors.TeacherError("x").exit_code == 3
    assert errors.BudgetReached("x").exit_code == 4
    assert errors.PartlyDone("x").exit_code == 5


def test_config_error_holds_every_problem() -> None:
    error = errors.ConfigError(f"{i} is wrong" for i in range(3))
    assert error.problems == ["0 is wrong", "1 is wrong", "2 is wrong"]
    assert str(error) == "0 is wrong\n1 is wrong\n2 is wrong"
    assert errors.ConfigError("one").problems == ["one"]


@pytest.mark.parametrize("error", [one for one in MADE if isinstance(one, (errors.ConfigError, errors.StoreError))])
def test_errors_cross_processes(error: errors.LmdistillError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)


def test_did_you_mean() -> None:
    assert errors.did_you_mean("smvap", ["svamp", "cqa"]) == "; did you mean 'svamp'?"
    assert errors.did_you_mean("zzz", ["svamp", "cqa"]) == "."
    assert errors.did_you_mean("x", []) == "."


def test_where_a_row_stands() -> None:
    assert str(errors.DataError("is bad")) == "is bad"
    assert str(errors.DataError("is bad", path="x.csv")) == "x.csv: is bad"
    assert str(errors.DataError("is bad", path="x.csv", line=0)) == "x.csv:0: is bad"
