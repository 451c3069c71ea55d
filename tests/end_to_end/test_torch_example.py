"""The example learns with PyTorch alone, and with the two lines of docs/pytorch.md changed through Swingby: the same losses."""

from __future__ import annotations

import os
import re
import runpy

import pytest

pytest.importorskip("torch", reason="swingby.torch needs PyTorch")

from swingby import sessions
from swingby.keeper.protocol import Stop

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def text_of(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


def switched(program):
    """The program with the lines of the document's diff changed."""
    (difference,) = re.findall(r"^```diff\n(.*?)^```", text_of("docs/pytorch.md"), re.DOTALL | re.MULTILINE)
    lines = difference.splitlines()
    removed, added = ([line[1:] for line in lines if line[0] == sign] for sign in "-+")
    assert len(removed) == len(added) == 2 == len(lines) / 2
    for old, new in zip(removed, added, strict=True):
        assert program.count(f"\n{old}\n") == 1
        program = program.replace(f"\n{old}\n", f"\n{new}\n")
    return program


@pytest.fixture
def images(tmp_path, home, monkeypatch):
    monkeypatch.setenv("SWINGBY_HOME", home)
    monkeypatch.setenv("SWINGBY_KEEPER_IDLE_EXIT_SECONDS", "1")
    runpy.run_path(os.path.join(ROOT, "examples", "images", "make.py"))["make"](str(tmp_path / "images"))
    yield str(tmp_path / "images")
    session = sessions.session()
    session.client.call(Stop(), 10)
    session.client.close()


def test_two_lines_switch_a_program_and_its_losses_stay(images):
    program = text_of("examples/images/train.py")
    plain, ours = {"__name__": "plain"}, {"__name__": "ours"}
    exec(compile(program, "train.py", "exec"), plain)
    exec(compile(switched(program), "train.py, switched", "exec"), ours)
    assert ours["DataLoader"].__module__.startswith("swingby")
    assert ours["train"](images, shuffle=False, epochs=2) == plain["train"](images, shuffle=False, epochs=2)
    for program in (plain, ours):
        losses = program["train"](images)
        assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
