"""A Prometheus server for a rehearsal or a check: started with a configuration made for it, and asked by HTTP."""

from __future__ import annotations

import json
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

import yaml

from deploy.demo.services import free_port
from deploy.local.processes import Child

_HOST = "127.0.0.1"
_START_S = 180.0
_ANSWER_S = 30.0
_LOOK_S = 0.2


class PrometheusError(RuntimeError):
    """Prometheus can't be started, does not answer, or refuses a query; the message says which and why."""


class Series(NamedTuple):
    """The labels of a series, its times in seconds since 1970, and its values."""

    labels: Mapping[str, str]
    times_s: Sequence[float]
    values: Sequence[float]


class Prometheus:
    """One running server on the loopback. A context manager; construction starts it and waits until it answers.

    Args:
        binary: the program `prometheus`.
        folder: of its configuration, its data and its log.
        targets: addresses of /metrics by the name of their job.
        rules: folder of rule files; None: there are none.
        scrape_s: from one scrape, and one look at the rules, to the next.

    Raises:
        PrometheusError: it ended, or did not answer within three minutes.
    """

    def __init__(
        self, binary: Path, folder: Path, targets: Mapping[str, Sequence[str]], rules: Path | None, scrape_s: float
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        pace = f"{round(1000 * scrape_s)}ms"
        config = {
            "global": {"scrape_interval": pace, "scrape_timeout": pace, "evaluation_interval": pace},
            "rule_files": [str(rules / "*.yml")] if rules else [],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": list(addresses)}]}
                for job, addresses in targets.items()
            ],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.address = f"{_HOST}:{free_port(0)}"
        command = [
            str(binary), f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={self.address}", "--log.level=warn",
        ]  # fmt: skip
        try:
            self._child = Child("prometheus", command, folder / "prometheus.log")
        except OSError as error:
            raise PrometheusError(f"--prometheus: {binary} can't be started: {error}") from None
        try:
            self._wait_until_ready(time.monotonic() + _START_S)
        except BaseException:
            self._child.stop()
            raise

    def query(self, expression: str) -> list[Series]:
        """The series that an expression gives now.

        Raises:
            PrometheusError: the expression is wrong, or there is no answer.
        """
        found = self._ask("query", {"query": expression})
        return [Series(one["metric"], [one["value"][0]], [float(one["value"][1])]) for one in found["result"]]

    def query_range(self, expression: str, begin_s: float, end_s: float, step_s: float) -> list[Series]:
        """The series that an expression gives over time; see `query`."""
        found = self._ask("query_range", {"query": expression, "start": begin_s, "end": end_s, "step": step_s})
        return [
            Series(one["metric"], [at for at, _ in one["values"]], [float(value) for _, value in one["values"]])
            for one in found["result"]
        ]

    def firing(self) -> set[tuple[str, str]]:
        """The alerts that fire now, each with its instance, "" where it has none."""
        found = self.query('ALERTS{alertstate="firing"}')
        return {(one.labels["alertname"], one.labels.get("instance", "")) for one in found}

    def close(self) -> None:
        self._child.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait_until_ready(self, deadline_s: float) -> None:
        while time.monotonic() < deadline_s:
            if self._child.wait(0) is not None:
                raise PrometheusError(f"prometheus has ended:\n{self._child.log_tail()}")
            with suppress(OSError), urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=_ANSWER_S):
                return
            time.sleep(_LOOK_S)
        raise PrometheusError(f"prometheus did not answer within {_START_S:g} s:\n{self._child.log_tail()}")

    def _ask(self, what: str, arguments: Mapping[str, object]) -> dict[str, Any]:
        form = urllib.parse.urlencode(arguments).encode()
        try:
            with urllib.request.urlopen(f"http://{self.address}/api/v1/{what}", form, _ANSWER_S) as answer:
                data: dict[str, Any] = json.load(answer)["data"]
                return data
        except urllib.error.HTTPError as error:
            raise PrometheusError(f"{arguments['query']}: {error.read().decode(errors='replace')}") from None
        except OSError as error:
            raise PrometheusError(f"prometheus at {self.address} does not answer: {error}") from None


def wait_until(true: Callable[[], object], within_s: float) -> bool:
    """Waits for a condition; False where it has not come in time."""
    deadline_s = time.monotonic() + within_s
    while not true():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(_LOOK_S)
    return True
