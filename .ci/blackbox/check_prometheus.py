"""A real Prometheus scrapes the aggregator and is asked what an SRE would ask it."""

import json
import re

import hostile
from lib import REPOSITORY, aggregator, eventually, expect, expect_close, push_flow
from prometheus import prometheus

# Longer than two scrapes, so that Prometheus meets every new series at 0 first.
SCRAPED_EVERY_SECOND = {"metrics": {"zero_first": "3s"}}


def check_the_first_observation_is_an_increase_of_one():
    with aggregator(**SCRAPED_EVERY_SECOND) as running, prometheus(running) as server:
        push_flow(running, "first_order", "order-1", 0.7)
        expect_increase_of_one(server, 'flow_latency_seconds_count{flow="first_order"}')
        expect_increase_of_one(server, 'flow_closed_total{flow="first_order"}')
        server.expect_every_scrape_worked()


def expect_increase_of_one(server, selector):
    eventually(lambda: server.query(f"sum({selector})"), 1, selector)
    # At the time of the newest sample there is nothing for increase() to extrapolate.
    newest = server.query(f"max(timestamp({selector}))")
    increase = server.query(f"sum(increase({selector}[5m]))", newest)
    expect_close(increase, 1, 0.001, f"increase of {selector}")


def check_a_quantile_lies_in_the_right_bucket():
    with aggregator(**SCRAPED_EVERY_SECOND) as running, prometheus(running) as server:
        for number in range(18):
            push_flow(running, "quick_order", f"order-{number}", 0.7)
        for number in range(18, 20):
            push_flow(running, "quick_order", f"order-{number}", 42)
        count = 'sum(flow_latency_seconds_count{flow="quick_order"})'
        eventually(lambda: server.query(count), 20, count, alive=running)
        rates = 'sum by (le) (increase(flow_latency_seconds_bucket{flow="quick_order"}[5m]))'
        median = server.query(f"histogram_quantile(0.5, {rates})")
        expect(0.5 < median <= 1, f"median {median} is not in the bucket of 0.7 s")
        p95 = server.query(f"histogram_quantile(0.95, {rates})")
        expect(30 < p95 <= 60, f"95th percentile {p95} is not in the bucket of 42 s")
        mean = server.query(
            'sum(flow_latency_seconds_sum{flow="quick_order"})'
            ' / sum(flow_latency_seconds_count{flow="quick_order"})'
        )
        expect_close(mean, (18 * 0.7 + 2 * 42) / 20, 1e-6, "mean latency")
        server.expect_every_scrape_worked()


def check_every_query_of_the_readme_returns_rows():
    flow = {
        "name": "checkout",
        "slo": {"latency": "5s", "objective": 99.9},
        "labels": {"tenant": 'span.attributes["tenant"]'},
    }
    queries = re.findall(r"```promql\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    expect(len(queries) >= 5, f"only {len(queries)} queries in README.md")
    with aggregator(**SCRAPED_EVERY_SECOND, flows=[flow]) as running, prometheus(running) as server:
        for number in range(10):
            push_flow(running, "checkout", f"order-{number}", 42, label_values={"tenant": "a"})
        count = 'sum(flow_latency_seconds_count{flow="checkout",tenant="a"})'
        eventually(lambda: server.query(count), 10, count, alive=running)
        for query in queries:
            eventually(lambda query=query: len(server.rows(query)) > 0, True, query, alive=running)
        expect_close(server.rows(queries[0])[0], 58.5, 5, "p95 of flows of 42 s")
        expect_close(server.rows(queries[2])[0], 1000, 1, "burn rate when every flow is bad")


def check_every_scrape_works_amid_hostile_pushes():
    with aggregator(**SCRAPED_EVERY_SECOND) as running, prometheus(running) as server:
        for push in hostile.PUSHES:
            running.push(push)
        running.settle()
        awkward = json.dumps(hostile.AWKWARD_VALUE)
        selector = f"order_count{{tenant={awkward}}}"
        eventually(lambda: server.query(selector), 1, selector, alive=running)
        server.expect_every_scrape_worked()
