"""The client distribution stays small."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["ousel", "ousel.cli"])
def test_importing_the_client_loads_neither_torch_nor_numpy_nor_the_engine(module):
    code = f"import sys, {module}; print(sorted({{n.partition('.')[0] for n in sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    assert "'grpc'" in loaded and "'google'" in loaded
    for heavy in ("torch", "numpy", "engine", "trainer", "typer", "rich"):
        assert f"'{heavy}'" not in loaded
