"""What `ousel-engine serve` refuses before it begins with anything."""

from __future__ import annotations

import pytest

from engine.commands.serve import serve
from engine.failures import WrongValue


def test_an_engine_that_others_could_reach_and_that_asks_nobody_does_not_start(tmp_path):
    path = tmp_path / "ousel.toml"
    path.write_text('[serving]\nhost = "0.0.0.0"\n')
    with pytest.raises(WrongValue) as error:
        serve(path)
    assert error.value.code == 2
    assert str(error.value).startswith("ousel-engine: serving.host: must be on the loopback while neither")
