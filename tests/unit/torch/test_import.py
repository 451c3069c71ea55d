"""torch is imported by who asks for it, and its absence is said in words that help."""

from __future__ import annotations

import subprocess
import sys


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def test_swingby_does_not_import_torch():
    assert run("import swingby, sys; sys.exit('torch' in sys.modules)").returncode == 0


def test_without_torch_the_error_says_what_to_install():
    found = run("import sys; sys.modules['torch'] = None; import swingby.torch")
    assert "ModuleNotFoundError" in found.stderr
    assert "pip install 'swingby[torch]'" in found.stderr
