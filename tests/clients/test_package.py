"""The client distribution stays small."""

import os
import subprocess
import sys

import pytest

# Collects this folder as `make test-client-versions` does, where only the client, pytest and what they need are there.
COLLECT = """
import re, sys
from importlib import metadata
import pytest

there, asked = set(), ["ousel-client", "hypothesis", "pytest", "pytest-asyncio"]
while asked:
    name = re.sub("[-_.]+", "-", re.match("[A-Za-z0-9._-]+", asked.pop())[0]).lower()
    try:
        asked += [need for need in metadata.requires(name) or () if "extra ==" not in need and name not in there]
        there.add(name)
    except metadata.PackageNotFoundError:
        pass  # Another platform or another version of Python needs it.

class Absent:
    names = {top for top, dists in metadata.packages_distributions().items()
             if not {re.sub("[-_.]+", "-", dist).lower() for dist in dists} & (there | {"ousel-engine"})}
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
sys.exit(pytest.main(["--collect-only", "-q", "-p", "pytest_asyncio.plugin", "-p", "no:cacheprovider",
                      "--confcutdir", "tests/clients", "tests/clients"]))
"""


@pytest.mark.parametrize("module", ["ousel", "ousel.cli"])
def test_importing_the_client_loads_neither_torch_nor_numpy_nor_the_engine(module):
    code = f"import sys, {module}; print(sorted({{n.partition('.')[0] for n in sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    assert "'grpc'" in loaded and "'google'" in loaded
    for heavy in ("torch", "numpy", "engine", "trainer", "typer", "rich"):
        assert f"'{heavy}'" not in loaded


def test_the_tests_of_the_client_need_no_more_than_the_client_brings():
    alone = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run([sys.executable, "-c", COLLECT], env=alone, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    assert "No module named 'pydantic'" in done.stdout, "nothing was kept away"
