"""Every metric is explained to operators, and none may grow without bound."""

import re
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from engine import metrics
from engine.objectives import FRESHNESS, LATENCY
from trainer import metrics as trainer_metrics

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
OURS = [
    metric
    for module in (metrics, trainer_metrics)
    for name, metric in vars(module).items()
    if isinstance(metric, MetricWrapperBase) and not name.startswith("_")
]
# Each label, and what bounds the number of its values. A user, an item, an id or the text of an error is none of these.
BOUNDED = {
    "topic": "the three topics of the settings",
    "partition": "the partitions that are read here; those that go take their series with them",
    "outcome": "names in the code", "stage": "names in the code", "how": "names in the code",
    "reason": "names in the code", "role": "the roles of the table",
    "cause": "names in the code", "origin": "names in the code", "folder": "names in the code",
    "program": "names in the code", "name": "figures of a training, as the code names them",
    "method": "the methods of the protocol, as the descriptors name them", "code": "gRPC's status codes",
    "version": "one build in a process; of models, those that live_quality keeps",
    "python": "one build in a process", "torch": "one build in a process",
    "settings": "one configuration in a process", "share": "likewise", "device": "likewise", "precision": "likewise",
}  # fmt: skip


def name_of(metric: MetricWrapperBase) -> str:
    return metric._name


def test_the_page_for_operators_explains_every_metric_with_its_labels_and_no_other():
    ours = {
        name_of(metric) + ("{" + ",".join(metric._labelnames) + "}" if metric._labelnames else "") for metric in OURS
    }
    explained = re.findall(r"^\| `(ousel_[^`]+)` \|", PAGE.read_text(), re.MULTILINE)
    assert sorted(explained) == sorted(ours)


def test_the_page_says_of_each_whether_it_is_a_counter_a_gauge_or_a_histogram():
    types = {Counter: "counter", Gauge: "gauge", Histogram: "histogram"}
    ours = {name_of(metric): types[type(metric)] for metric in OURS}
    said = re.findall(r"^\| `(ousel_\w+)[^`]*` \| (\w+)", PAGE.read_text(), re.MULTILINE)
    assert dict(said) == ours


def test_every_label_has_a_bounded_number_of_values():
    labels = {label for metric in OURS for label in metric._labelnames}
    assert labels <= BOUNDED.keys()


def test_the_objectives_are_ends_of_buckets_so_that_what_keeps_them_is_counted():
    assert FRESHNESS.within_s in metrics.FRESHNESS_SECONDS._upper_bounds
    assert LATENCY.within_s in metrics.REQUEST_SECONDS._kwargs["buckets"]
