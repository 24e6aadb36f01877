"""Folders of models: local ones, those of an S3 server in this process, and what goes wrong with them."""

from __future__ import annotations

import importlib.util
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.registry.errors import DamagedModel, RegistryError
from engine.registry.places import Place, place_of
from engine.registry.stored import ModelFiles
from tests.engine.registry.test_ledger import model

DATA = bytes(range(256)) * 9000  # more than one piece


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of a folder in an S3 server."""
    missing = [name for name in ("moto", "flask", "flask_cors") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"there is no S3 server here ({', '.join(missing)} not installed): make test-s3 brings one")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "tester")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        options = f"region=us-east-1&scheme=http&endpoint_override={host}%3A{port}&allow_bucket_creation=true"
        from pyarrow.fs import FileSystem

        system, bucket = FileSystem.from_uri(f"s3://shop?{options}")
        system.create_dir(bucket)
        yield f"s3://shop/models?{options}"
    server.stop()


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "local":
        return place_of(str(tmp_path / "state" / "models"))
    return place_of(request.getfixturevalue("s3"))


def test_a_file_is_read_as_it_was_written_and_is_gone_once_it_is_deleted(place: Place):
    place.write("a", DATA)
    assert place.read("a", len(DATA)) == DATA
    place.write("a", b"anew")
    assert place.read("a", 10) == b"anew"
    with pytest.raises(DamagedModel, match="has 4 bytes, at most 3 make sense"):
        place.read("a", 3)
    place.delete("a")
    place.delete("a")
    with pytest.raises(DamagedModel, match="is missing"):
        place.read("a", 10)


def test_a_model_is_read_back_against_its_digest(place: Place):
    import hashlib
    from dataclasses import replace

    files = ModelFiles(place)
    stored = replace(model(7), sha256=hashlib.sha256(DATA).hexdigest(), size_bytes=len(DATA))
    files.store(stored, DATA)
    assert files.load(stored) == DATA
    place.write(f"{stored.name}.safetensors", DATA[:-1])
    with pytest.raises(DamagedModel, match=rf"{stored.name}.safetensors: has {len(DATA) - 1} bytes of SHA-256"):
        files.load(stored)
    files.delete(stored)
    with pytest.raises(DamagedModel, match="is missing"):
        files.load(stored)


def test_only_this_user_may_read_what_lies_in_a_local_folder_and_nothing_half_written_stays(tmp_path: Path):
    folder = tmp_path / "models"
    place_of(f"file://{folder}").write("a", DATA)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "a").stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir()] == ["a"]


def test_no_link_leads_out_of_a_local_folder(tmp_path: Path):
    (tmp_path / "secret").write_bytes(b"hush")
    place = place_of(str(tmp_path / "models"))
    place.write("b", b"x")
    (tmp_path / "models" / "a").symlink_to(tmp_path / "secret")
    with pytest.raises(DamagedModel, match="is no plain file"):
        place.read("a", 10)


def test_a_folder_that_can_not_be_made_is_named_with_the_setting(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RegistryError, match=rf"registry.dir {tmp_path}/file/models can't be used: "):
        place_of(str(tmp_path / "file" / "models")).write("a", b"x")


def test_a_store_that_is_away_is_named_without_what_its_address_hides():
    place = place_of("s3://shop/models?region=us-east-1&scheme=http&endpoint_override=127.0.0.1%3A1&request=x")
    assert place.shown == "s3://shop/models"
    with pytest.raises(RegistryError, match=r"registry\.dir s3://shop/models can't be used: "):
        place.read("a", 10)
