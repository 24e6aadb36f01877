"""The committed stubs are what `make gen` makes of proto/ today, and run with all versions that the client supports."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from ousel.v1 import (
    catalog_pb2,
    event_pb2,
    event_service_pb2,
    model_service_pb2,
    privacy_service_pb2,
    recommender_service_pb2,
    state_service_pb2,
)

ROOT = Path(__file__).resolve().parents[2]
CLIENT = ROOT / "clients" / "python"
STUBS = CLIENT / "ousel" / "v1"
PROTOS = sorted((ROOT / "proto" / "ousel" / "v1").glob("*.proto"))
GENERATOR = ROOT / "build" / "generator"
MODULES = (
    catalog_pb2,
    event_pb2,
    event_service_pb2,
    model_service_pb2,
    privacy_service_pb2,
    recommender_service_pb2,
    state_service_pb2,
)


def test_committed_stubs_hold_what_proto_says(tmp_path):
    """By any compiler: what it makes of the files is what the stubs have."""
    protoc = pytest.importorskip("grpc_tools.protoc")
    well_known = Path(protoc.__file__).parent / "_proto"
    made = tmp_path / "descriptors"
    places = ["-I", str(ROOT / "proto"), "-I", str(well_known)]
    assert protoc.main(["protoc", *places, f"--descriptor_set_out={made}", *map(str, PROTOS)]) == 0
    fresh = {file.name: file for file in descriptor_pb2.FileDescriptorSet.FromString(made.read_bytes()).file}
    for file in fresh.values():
        _without_json_names(file.message_type)
    committed = {}
    for module in MODULES:
        file = descriptor_pb2.FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)
        _without_json_names(file.message_type)
        committed[file.name] = file
    assert committed.keys() == fresh.keys()
    stale = sorted(name for name in fresh if fresh[name] != committed[name])
    assert not stale, f"the stubs of {', '.join(stale)} are stale; run make gen"


@pytest.mark.skipif(not (GENERATOR / "grpc_tools").is_dir(), reason="make gen, or make test, brings the generator")
def test_committed_stubs_are_those_of_the_generator_byte_for_byte(tmp_path):
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    places = ["-I", str(ROOT / "proto"), "-I", str(GENERATOR / "grpc_tools" / "_proto")]
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", *places, *outputs, *map(str, PROTOS)],
        env=os.environ | {"PYTHONPATH": str(GENERATOR)},
        check=True,
        timeout=60,
    )
    fresh, committed = _files(tmp_path / "ousel" / "v1"), _files(STUBS)
    stale = sorted(name for name in fresh.keys() | committed.keys() if fresh.get(name) != committed.get(name))
    assert not stale, f"stale, missing or left over in {STUBS.relative_to(ROOT)}: {', '.join(stale)}; run make gen"


def test_committed_stubs_ask_for_no_newer_version_than_the_oldest_that_the_client_supports():
    """Stubs of a newer generator refuse to be imported beside older versions."""
    oldest = _pins("oldest")
    for path in STUBS.glob("*_pb2*.py"):
        text = path.read_text()
        assert "ValidateProtobufRuntimeVersion" not in text, path
        assert "GRPC_GENERATED_VERSION" not in text, path
    assert f"# Protobuf Python Version: {oldest['protobuf']}" in (STUBS / "event_pb2.py").read_text()


def test_the_client_supports_what_it_is_tested_with_and_nothing_older():
    ranges = tomllib.loads((CLIENT / "pyproject.toml").read_text())["project"]["dependencies"]
    lower = dict(part.split(",")[0].split(">=") for part in ranges)
    assert lower == _pins("oldest")
    assert _pins("newest").keys() == lower.keys()


def _pins(end: str) -> dict[str, str]:
    lines = (CLIENT / f"{end}.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def _without_json_names(messages) -> None:
    """Stubs leave them out, and a compiler fills them in."""
    for message in messages:
        for field in message.field:
            field.ClearField("json_name")
        _without_json_names(message.nested_type)


def _files(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.name != "__init__.py"}
