"""The parent of a search stays light: it builds every member of every family without importing torch."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
from pathlib import Path
import yaml
from components.build import build
import components.search.search
for family in ("strategy", "scheduler", "evaluator", "runner"):
    for path in sorted(Path("conf", family).glob("*.yaml")):
        build({**yaml.safe_load(path.read_text()), "_partial_": True})
        heavy = [name for name in ("torch", "lightning", "sklearn", "onnxruntime", "mlflow", "ray", "distributed") if name in sys.modules]
        assert not heavy, f"{family}={path.stem} imports {heavy}"
print("light")
"""


def test_no_member_imports_torch_when_it_is_built() -> None:
    """The eight seconds of an import belong to the workers, which have it preloaded."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "light", done.stderr
