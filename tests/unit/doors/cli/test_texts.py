"""Numbers, keys and errors as the command line prints them."""

from __future__ import annotations

import pytest

from swingby import errors
from swingby.doors.cli import quantities
from swingby.doors.cli.ending import ExitCode, Terminated, code_of, line_of
from swingby.doors.cli.terminal import shown


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1250, "1.25 kB"), (123_456_789, "123 MB"), (2.5e12, "2.50 TB")],
)
def test_sizes_are_decimal_with_three_digits(count, text):
    assert quantities.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (2e-7, "0.20 µs"),
        (85.4e-6, "85.4 µs"),
        (0.0123, "12.3 ms"),
        (1.5, "1.50 s"),
        (119, "119 s"),
        (245, "4 min 05 s"),
        (7805, "2 h 10 min"),
    ],
)
def test_durations_have_the_unit_that_fits(seconds, text):
    assert quantities.duration(seconds) == text


def test_ratios_shares_and_counts():
    assert quantities.factor(0.164) == "0.16×"
    assert quantities.factor(0.00164) == "0.0016×"
    assert quantities.factor(1234.5) == "1,234×"
    assert quantities.share(0.9716) == "97.2 %"
    assert quantities.objects(1) == "1 object"
    assert quantities.objects(33878) == "33,878 objects"


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("plain äöü", "plain äöü"),
        ("two\nlines", "two\\nlines"),
        ("\x1b[31mred", "\\x1b[31mred"),
        (b"not \xff utf-8".decode("utf-8", "surrogateescape"), "not \\udcff utf-8"),
    ],
)
def test_keys_cannot_act_on_the_terminal_and_can_always_be_printed(key, text):
    assert shown(key) == text
    assert shown(key).encode()


def tree(kind):
    return {kind} | {inner for child in kind.__subclasses__() for inner in tree(child)}


OURS = [kind for kind in tree(errors.SwingbyError) - {errors.SwingbyError} if kind.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", sorted(OURS, key=lambda one: one.__name__))
def test_every_error_has_an_exit_code_of_its_own_kind(kind):
    faults = {errors.ClosedError, errors.ForkError}
    assert (code_of(kind("x")) is ExitCode.FAULT) == (kind in faults)


def test_kinds_of_errors_are_told_apart_by_the_exit_code():
    assert code_of(errors.ConfigError("x")) == 2
    assert code_of(errors.EmptyDatasetError("x")) == 3
    assert code_of(errors.AuthenticationError("x")) == 4
    assert code_of(errors.BaseUnavailableError("x")) == 5
    assert code_of(errors.KeeperUnavailableError("x")) == 6
    assert code_of(errors.ObjectChangedError("x")) == 7
    assert code_of(ZeroDivisionError()) == 70
    assert code_of(KeyboardInterrupt()) == 130
    assert code_of(Terminated()) == 143
    assert code_of(PermissionError(13, "Permission denied")) == 1


def test_an_error_is_one_line_with_its_remedy():
    error = errors.ObjectNotFoundError("/a\nb: no such file", remedy="Look elsewhere")
    assert line_of(error) == "error: /a\\nb: no such file. Look elsewhere"
    assert line_of(FileNotFoundError(2, "No such file or directory", "/x")) == "error: /x: No such file or directory"
    assert "--debug" in line_of(ZeroDivisionError("division by zero"))
