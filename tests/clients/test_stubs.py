"""The committed stubs are what `make gen` makes of proto/ today."""

from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[2]
STUBS = ROOT / "clients" / "python" / "ousel" / "v1"


def test_committed_stubs_are_fresh(tmp_path):
    protos = sorted((ROOT / "proto" / "ousel" / "v1").glob("*.proto"))
    assert protos
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    arguments = ["protoc", "-I", str(ROOT / "proto"), "-I", str(well_known), *outputs, *map(str, protos)]
    assert protoc.main(arguments) == 0
    fresh, committed = _files(tmp_path / "ousel" / "v1"), _files(STUBS)
    stale = sorted(name for name in fresh.keys() | committed.keys() if fresh.get(name) != committed.get(name))
    assert not stale, f"stale, missing or left over in {STUBS.relative_to(ROOT)}: {', '.join(stale)}; run make gen"


def _files(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.name != "__init__.py"}
