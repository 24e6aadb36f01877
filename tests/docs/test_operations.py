"""What operators read names only settings and metrics that exist, and every setting that a snapshot depends on."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client import REGISTRY

from engine import metrics
from engine.config import Config, StateConfig
from engine.snapshot.settings import REFUSED, RESTORED_AS_IS, RESTORED_WITH_CONVERSION, fingerprint
from trainer import metrics as trainer_metrics
from trainer.config import TrainerConfig

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {name: (DOCS / f"{name}.md").read_text() for name in ("operations", "limits", "kafka", "identity")}
PAGE = PAGES["operations"]
EVERYTHING = "\n".join(PAGES.values())


def settings() -> set[str]:
    fields = {**Config.model_fields, **TrainerConfig.model_fields}
    sections = {name: getattr(field.annotation, "model_fields", {}) for name, field in fields.items()}
    return {f"{section}.{name}" for section, found in sections.items() for name in found}


def test_every_setting_it_names_exists():
    known = settings()
    sections = "|".join({name.split(".")[0] for name in known})
    named = set(re.findall(rf"`((?:{sections})\.[a-z_]+)", EVERYTHING))
    assert len(named) > 40
    assert named <= known


def test_every_metric_it_names_exists():
    assert metrics.READY
    known = {family.name for registry in (REGISTRY, trainer_metrics.REGISTRY) for family in registry.collect()}
    named = {re.sub(r"_(total|sum|count|bucket)$", "", name) for name in re.findall(r"ousel_[a-z_]+", EVERYTHING)}
    assert len(named) > 15
    assert named <= known


def test_it_lists_the_settings_that_a_snapshot_depends_on():
    config = Config()
    with_model = StateConfig(content_encoder="sentence-transformer", content_model="any")  # hashed names neither
    depends = {name for name in fingerprint(with_model, config.events, config.kafka, 1) if "." in name}
    part = PAGE.split("### Settings that a snapshot depends on")[1].split("## ")[0]
    table = "".join(line for line in part.splitlines() if line.startswith("|"))
    assert set(re.findall(r"`([a-z]+\.[a-z_]+)`", table)) == depends


def test_what_it_calls_refused_and_restored_is():
    part = PAGE.split("### Settings that a snapshot depends on")[1].split("## ")[0]
    rows = [line for line in part.splitlines() if line.startswith("| `")]
    for row in rows:
        names = set(re.findall(r"`([a-z]+\.[a-z_]+)`", row))
        if "as they are" in row and "weights" not in row:
            assert names <= set(RESTORED_AS_IS), row
        elif "**refused**" in row and "gone" not in row:
            assert names == set(REFUSED), row
        else:
            assert names <= set(RESTORED_WITH_CONVERSION), row
