"""The tree of errors."""

from __future__ import annotations

import errno
import pickle

import pytest

from swingby import errors


def tree(root):
    return [root, *[one for child in root.__subclasses__() for one in tree(child)]]


ALL = [cls for cls in tree(errors.SwingbyError) if cls.__module__ == "swingby.errors"]


@pytest.mark.parametrize("cls", ALL)
def test_an_error_survives_pickling_and_the_protocol_with_its_facts(cls):
    error = cls("what happened", key="k", base="b", level="memory", remedy="Do this")
    for copy in (pickle.loads(pickle.dumps(error)), errors.from_facts(cls.__name__, error.facts())):
        assert type(copy) is cls
        assert (copy.key, copy.base, copy.level, copy.remedy) == ("k", "b", "memory", "Do this")
        assert str(copy) == "what happened. Do this"
        assert copy.errno == error.errno


def test_errors_are_the_builtins_that_python_expects():
    assert issubclass(errors.ObjectNotFoundError, FileNotFoundError)
    assert errors.ObjectNotFoundError("x").errno == errno.ENOENT
    assert issubclass(errors.AccessDeniedError, PermissionError)
    assert issubclass(errors.BaseUnavailableError, ConnectionError)
    assert issubclass(errors.DeadlineError, TimeoutError)
    assert issubclass(errors.ConfigError, ValueError)


def test_the_tree_is_drawn_as_it_is():
    drawing = errors.__doc__
    for cls in ALL:
        assert cls.__name__ in drawing, cls
    for word in drawing.split():
        if word.endswith("Error") and word != "SwingbyError":
            assert (
                any(cls.__name__ == word for cls in ALL)
                or word.strip("()") in dir(__builtins__)
                or hasattr(errors, word)
            )


def test_an_unknown_error_of_a_newer_keeper_is_still_ours():
    found = errors.from_facts("ErrorOfTomorrow", {"message": "strange"})
    assert type(found) is errors.SwingbyError
    assert str(found) == "strange"


def test_only_passing_failures_are_retryable():
    assert {cls.__name__ for cls in ALL if cls.retryable} == {"TruncatedReadError", "BaseUnavailableError"}
