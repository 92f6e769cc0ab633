"""A Prometheus that scrapes an aggregator every second: Debian's, or the current release."""

import json
import urllib.parse
from contextlib import contextmanager

from lib import Process, eventually, expect, expect_equal, free_port, get, tool


class Prometheus(Process):
    """`program` is the variable that names it, each of `jobs` is a job of its own, and `rules` is
    the text of a rule file."""

    def __init__(
        self, running, program="PROMETHEUS", features=(), jobs=({},), rules="groups: []"
    ):
        port = free_port()
        target = running.metrics_url.removeprefix(f"{running.scheme}://").removesuffix("/metrics")
        job = {"job_name": "latency-aggregator", "static_configs": [{"targets": [target]}]}
        self._url = f"http://127.0.0.1:{port}"
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yml"],
            "scrape_configs": [{**job, **options} for options in jobs],
        }
        super().__init__(
            "prometheus",
            [
                tool(program),
                "--config.file=prometheus.yml",
                "--storage.tsdb.path=data",
                f"--web.listen-address=127.0.0.1:{port}",
                *([f"--enable-feature={','.join(features)}"] if features else []),
            ],
            files={"prometheus.yml": json.dumps(config), "rules.yml": rules},
        )

    def query(self, expression, at=None):
        """The value of an expression that has at most one series; None without any."""
        rows = self.rows(expression, at)
        expect(len(rows) <= 1, f"{expression} has {len(rows)} series")
        return rows[0] if rows else None

    def rows(self, expression, at=None):
        """The values of an expression."""
        return [float(series["value"][1]) for series in self.series(expression, at)]

    def series(self, expression, at=None):
        """The result of an expression as the API has it."""
        parameters = {"query": expression}
        if at is not None:
            parameters["time"] = f"{at:.3f}"
        return self.ask("query", **parameters)["result"]

    def rules(self):
        """All rules as Prometheus sees them."""
        return [rule for group in self.ask("rules")["groups"] for rule in group["rules"]]

    def ask(self, endpoint, **parameters):
        """The data that an endpoint of the API answers with."""
        status, text = get(f"{self._url}/api/v1/{endpoint}?{urllib.parse.urlencode(parameters)}")
        expect_equal(status, 200, f"status of {endpoint} {parameters}, reply {text}")
        return json.loads(text)["data"]

    def expect_every_scrape_worked(self):
        """In each of its jobs."""
        expect_equal(self.query("min(min_over_time(up[1h]))"), 1, "the worst scrape")


@contextmanager
def prometheus(running, **options):
    """A Prometheus that has scraped the aggregator once, in each of its jobs."""
    with Prometheus(running, **options) as server:
        eventually(lambda: server.query("min(up)"), 1, "the first scrape", alive=server)
        yield server
