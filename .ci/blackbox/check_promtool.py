"""promtool and an independent parser find nothing wrong with /metrics, whatever was pushed."""

import hostile
from lib import (
    EXAMPLES,
    Scrape,
    aggregator,
    eventually,
    expect,
    expect_equal,
    get,
    run,
    telemetrygen,
    tool,
)


def check_metrics_are_clean_from_the_start():
    with aggregator() as running:
        expect_clean(running)


def check_metrics_are_clean_with_data():
    with aggregator() as running:
        telemetrygen(running.otlp_grpc, traces=20)
        running.push({"id": "1", "name": "order", "stage": "placed", "life_span": 0})
        running.push(
            {"id": "2", "name": "payment", "stage": "paid", "status": "error", "final": True}
        )
        eventually(
            lambda: running.scrape().total("flow_latency_seconds_count"), 22, "flows", alive=running
        )
        expect_clean(running)


def check_metrics_are_clean_after_hostile_pushes():
    with aggregator() as running:
        for push in hostile.PUSHES:
            status, reply = running.push(push)
            expect(status in (200, 400, 413), f"status {status} to {str(push)[:200]}: {reply}")
            expect_clean(running)
        unaccounted = running.settle().unaccounted()
        expect_equal(unaccounted, 0, "events that are counted nowhere or twice")
        eventually(
            lambda: running.scrape().total("order_count", tenant=hostile.AWKWARD_VALUE),
            1,
            "the flow with an awkward label value",
            alive=running,
        )
        expect_clean(running)
        before = running.scrape().total("flow_latency_seconds_count", flow="order")
        running.push({"id": "plain", **hostile.PLAIN})
        eventually(
            lambda: running.scrape().total("flow_latency_seconds_count", flow="order"),
            before + 1,
            "a plain push after all that",
            alive=running,
        )


def check_the_scrape_config_in_the_examples_is_valid():
    code, output = run([tool("PROMTOOL"), "check", "config", EXAMPLES / "prometheus.yml"])
    expect_equal(code, 0, f"exit code of promtool check config, which said:\n{output}")


def expect_clean(running):
    status, text = get(running.metrics_url)
    expect_equal(status, 200, "status of /metrics")
    Scrape(text)
    code, complaints = run([tool("PROMTOOL"), "check", "metrics"], stdin=text)
    expect_equal((code, complaints), (0, ""), "exit code and output of promtool check metrics")
