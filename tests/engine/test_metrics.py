import re
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

from engine import metrics

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_page_for_operators_explains_every_metric_with_its_labels_and_no_other():
    ours = {
        metric._name + ("{" + ",".join(metric._labelnames) + "}" if metric._labelnames else "")
        for metric in vars(metrics).values()
        if isinstance(metric, MetricWrapperBase)
    }
    explained = re.findall(r"^\| `(ousel_[^`]+)` \|", PAGE.read_text(), re.MULTILINE)
    assert sorted(explained) == sorted(ours)
