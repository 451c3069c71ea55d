"""The house: sizes, names, docstrings, layers, who reads the environment, what is public."""

from __future__ import annotations

import ast
import io
import os
import re
import tokenize

import pytest

import swingby

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SOURCE = os.path.join(ROOT, "src", "swingby")
LINES_MAX = 400
MANY_LINES, MANY_LINES_SHARE = 200, 0.25
FUNCTION_LINES_MAX = 60
PARAMETERS_MAX, PARAMETERS_PUBLIC_MAX = 5, 12
BANNED_NAMES = {"utils", "util", "helpers", "common", "misc", "manager", "base_class", "v2"}
PUBLIC = {
    "Batch",
    "Dataset",
    "Decode",
    "Loader",
    "Mixture",
    "Sample",
    "SwingbyError",
    "open",
    "prefetch",
    "read",
    "read_into",
}


def sources():
    for folder, _, names in os.walk(SOURCE):
        for name in sorted(names):
            if name.endswith(".py"):
                yield os.path.relpath(os.path.join(folder, name), SOURCE)


FILES = sorted(sources())


def text_of(file):
    with open(os.path.join(SOURCE, file), encoding="utf-8") as opened:
        return opened.read()


def functions(file):
    for node in ast.walk(ast.parse(text_of(file))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("file", FILES)
def test_files_are_short(file):
    assert len(text_of(file).splitlines()) <= LINES_MAX


def test_few_files_are_longer_than_they_should_be():
    long = [file for file in FILES if len(text_of(file).splitlines()) > MANY_LINES]
    assert len(long) <= MANY_LINES_SHARE * len(FILES), long


@pytest.mark.parametrize("file", FILES)
def test_functions_fit_a_screen(file):
    assert [node.name for node in functions(file) if node.end_lineno - node.lineno >= FUNCTION_LINES_MAX] == []


@pytest.mark.parametrize("file", FILES)
def test_functions_have_few_parameters(file):
    is_command = file.startswith(("doors/cli", "bench/command"))
    for node in functions(file):
        positional = len(node.args.posonlyargs) + len(node.args.args)
        positional -= bool(node.args.args and node.args.args[0].arg in {"self", "cls"})
        assert positional + len(node.args.kwonlyargs) <= PARAMETERS_PUBLIC_MAX, node.name
        if not is_command:
            assert positional <= PARAMETERS_MAX, node.name


@pytest.mark.parametrize("file", FILES)
def test_names_say_something(file):
    assert not BANNED_NAMES & set(re.split(r"[/.]", file))


@pytest.mark.parametrize("file", FILES)
def test_nothing_is_left_over_or_waved_through(file):
    for token in tokenize.generate_tokens(io.StringIO(text_of(file)).readline):
        if token.type == tokenize.COMMENT:
            assert not re.search(r"TODO|FIXME|XXX|noqa|type: ignore|no cover", token.string), token
    assert not re.search(r"raise NotImplementedError", text_of(file)) or file == "testing/base_suite.py"


@pytest.mark.parametrize("file", [file for file in FILES if file != "config.py"])
def test_only_config_reads_the_environment(file):
    for node in ast.walk(ast.parse(text_of(file))):
        name = getattr(node, "attr", getattr(node, "id", ""))
        assert name not in {"environ", "getenv", "environb"}, f"{file}:{node.lineno}"


@pytest.mark.parametrize("file", FILES)
def test_what_is_public_is_documented(file):
    tree = ast.parse(text_of(file))
    assert ast.get_docstring(tree), file
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name


def test_the_public_names_are_exactly_these():
    assert set(swingby.__all__) == PUBLIC
    assert all(hasattr(swingby, name) for name in PUBLIC)


def test_the_version_is_one():
    with open(os.path.join(ROOT, "pyproject.toml"), encoding="utf-8") as file:
        assert f'version = "{swingby.__version__}"' in file.read()


def test_tests_mirror_the_source():
    """A folder of unit tests is a folder of the source."""
    unit = os.path.join(ROOT, "tests", "unit")
    for folder, names, _ in os.walk(unit):
        names[:] = [name for name in names if name != "__pycache__"]
        for name in names:
            assert os.path.isdir(os.path.join(SOURCE, os.path.relpath(os.path.join(folder, name), unit))), name


def test_texts_speak_of_the_project_alone():
    banned = re.compile(r"\.\./shared|/work/|\bhelper agent|subagent", re.IGNORECASE)
    for folder in ("src", "docs", "tests", "."):
        for where, folders, names in os.walk(os.path.join(ROOT, folder)):
            if folder == ".":
                folders.clear()
            folders[:] = [name for name in folders if not name.startswith((".", "__"))]
            for name in names:
                if name.endswith((".py", ".md", ".toml")) and name != "test_house.py":
                    with open(os.path.join(where, name), encoding="utf-8") as file:
                        assert not banned.search(file.read()), os.path.join(where, name)
