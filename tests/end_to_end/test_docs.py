"""Documents are true: their Python runs, their settings exist, their links lead somewhere."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import subprocess
import sys
import tarfile

import numpy as np
import pytest

from swingby import config

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DOCUMENTS = sorted(
    os.path.relpath(os.path.join(folder, name), ROOT)
    for where in ("", "docs")
    for folder, folders, names in os.walk(os.path.join(ROOT, where))
    for name in names
    if name.endswith(".md") and (where or folder == os.path.join(ROOT, where)) and "/." not in folder
)
WITH_PYTHON = (
    "README.md",
    "docs/reading.md",
    "docs/mixtures.md",
    "docs/containers.md",
    "docs/fsspec.md",
    "docs/huggingface.md",
    "docs/jax.md",
    "docs/pytorch.md",
    "docs/tensorflow.md",
)
NEEDED = {
    "docs/containers.md": ("pyarrow",),
    "docs/fsspec.md": ("fsspec", "pandas", "pyarrow"),
    "docs/huggingface.md": ("datasets", "fsspec", "PIL", "pyarrow", "torch"),
    "docs/jax.md": ("grain", "jax"),
    "docs/pytorch.md": ("torch",),
    "docs/tensorflow.md": ("tensorflow",),
}
APART = {
    "docs/jax.md",
    "docs/tensorflow.md",
}  # in a process of their own: after them, no fork of this one would be safe


def text_of(document):
    with open(os.path.join(ROOT, document), encoding="utf-8") as file:
        return file.read()


@pytest.fixture
def photos(tmp_path, home, monkeypatch):
    """What the documents read: a directory `photos` here, and a home of the test's own."""
    monkeypatch.setenv("SWINGBY_HOME", home)
    monkeypatch.setenv("SWINGBY_KEEPER_IDLE_EXIT_SECONDS", "1")
    (tmp_path / "photos" / "broken").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg", "c.png", "d.jpg", "broken/e.jpg", "f.jpg", "g.jpg", "h.jpg", "i.jpg"):
        (tmp_path / "photos" / name).write_bytes(os.urandom(5000))
    monkeypatch.chdir(tmp_path)
    yield
    from swingby import sessions
    from swingby.keeper.protocol import Stop

    session = sessions.session()
    session.client.call(Stop(), 10)
    session.client.close()


@pytest.fixture
def containers(tmp_path):
    """What docs/containers.md reads."""
    for folder in ("shards", "tables", "arrays"):
        (tmp_path / folder).mkdir()
    with tarfile.open(tmp_path / "shards" / "000000.tar", "w") as made:
        for number in range(10):
            for name, data in ((f"{number:06d}.jpg", os.urandom(3000)), (f"{number:06d}.cls", b"%d" % number)):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                made.addfile(info, io.BytesIO(data))
    for number in range(3):
        np.save(tmp_path / "arrays" / f"{number}.npy", np.full((4, 5), number, order="CF"[number % 2]))
    if importlib.util.find_spec("pyarrow"):
        import pyarrow.parquet

        table = pyarrow.table({"id": list(range(100)), "word": ["w"] * 100})
        pyarrow.parquet.write_table(table, tmp_path / "tables" / "a.parquet", row_group_size=25)


@pytest.fixture
def samples(tmp_path, monkeypatch):
    """What the documents on other frameworks read."""
    for folder in ("records", "pictures", "texts"):
        (tmp_path / folder).mkdir()
    for number in range(24):
        row = np.random.default_rng(number).random(33, np.float32)
        (tmp_path / "records" / f"{number:02}.f32").write_bytes(row.tobytes())
        (tmp_path / "texts" / f"{number:02}.txt").write_bytes(b"word " * (number + 1))
        if importlib.util.find_spec("PIL"):
            from PIL import Image

            Image.fromarray(np.full((8, 9, 3), number, np.uint8)).save(
                tmp_path / "pictures" / f"{number % 2}-{number:02}.png"
            )
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hugging-face"))
    if importlib.util.find_spec("datasets"):
        import datasets

        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hugging-face"))


@pytest.mark.parametrize("document", WITH_PYTHON)
def test_the_python_of_a_document_runs(document, photos, containers, samples):
    for package in NEEDED.get(document, ()):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{document} shows {package}, which is not installed")
    blocks = re.findall(r"^```python\n(.*?)^```", text_of(document), re.DOTALL | re.MULTILINE)
    assert blocks
    if document in APART:
        subprocess.run([sys.executable, "-c", "\n".join(blocks)], check=True, timeout=100)
        return
    names = {}
    for block in blocks:
        exec(compile(block, document, "exec"), names)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_only_tested_documents_hold_python(document):
    assert document in WITH_PYTHON or "```python" not in text_of(document)


def test_every_setting_is_documented_and_no_other():
    text = text_of("docs/configuration.md")
    table = text[text.index("| Key |") : text.index("## Where")]
    documented = {
        name
        for row in table.splitlines()
        for name in re.findall(r"`([\w.]+)`", row.split("|")[1] if "|" in row else "")
    }
    assert documented == set(config.keys())


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_that_a_document_names_exist(document):
    text = text_of(document)
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert os.path.exists(os.path.join(ROOT, os.path.dirname(document), target)), target
    for path in re.findall(r"`((?:docs|tests|src|base|keeper|levels|path|data|core)/[\w/.-]+)`", text):
        places = (path, os.path.join("src/swingby", path))
        assert any(os.path.exists(os.path.join(ROOT, place)) for place in places), path
