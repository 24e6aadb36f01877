"""The alert rules with all their times divided, so that a rehearsal of hours takes minutes."""

from __future__ import annotations

import re
from pathlib import Path

RULES = Path(__file__).parent / "rules"
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_TIMES = re.compile(r"(\[|\boffset |\bfor: )(\d+)([smhd])")
_AGES = re.compile(r"\b(1800|86400)\b")  # seconds that an age is compared with


def scaled(text: str, factor: float) -> str:
    """A file of rules whose windows, waits and ages are all `factor` times shorter; no other number changes."""

    def shorter(found: re.Match[str]) -> str:
        return f"{found[1]}{max(1, round(1000 * int(found[2]) * _UNIT_S[found[3]] / factor))}ms"

    return _AGES.sub(lambda found: f"{int(found[1]) / factor:g}", _TIMES.sub(shorter, text))


def write_scaled(folder: Path, factor: float) -> None:
    """Writes all files of rules, scaled, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in RULES.glob("*.yml"):
        (folder / path.name).write_text(scaled(path.read_text(), factor))
