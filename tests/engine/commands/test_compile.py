"""`ousel-engine compile` says what became of the functions, and fails only where the next start compiles them again."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.commands import compile as module
from engine.kernel_cache import CacheReport


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> CacheReport:
    report = CacheReport()
    report.compiled, report.folder = 1, Path("/kept/here")
    monkeypatch.setattr(module, "report", report)
    monkeypatch.setattr(module, "kernel_modules", dict)
    return report


def test_damaged_code_that_was_compiled_again_is_no_failure(
    report: CacheReport, capsys: pytest.CaptureFixture[str]
) -> None:
    report.note_damage("/kept/here/f.kernel can't be used: it is damaged")
    module.compile_functions()
    said = capsys.readouterr()
    assert "1 functions were compiled for this machine" in said.out and "/kept/here" in said.out
    assert "f.kernel can't be used: it is damaged" in said.err


def test_functions_that_can_not_be_kept_are_one(report: CacheReport) -> None:
    report.note("/kept/here/f.kernel can't be written: No space left on device")
    with pytest.raises(SystemExit, match=r"can't be kept: .* No space left on device"):
        module.compile_functions()
