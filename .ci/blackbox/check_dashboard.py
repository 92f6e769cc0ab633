"""Every query of the dashboard and of the rules returns rows from a real Prometheus with data."""

import json
import math
import os
import re
import time

from check_curl import resource_spans, span
from lib import EXAMPLES, aggregator, eventually, expect, expect_equal, post_json, printed
from prometheus import prometheus

FLOW = "checkout"
CONFIG = {
    "flows": [
        {
            "name": FLOW,
            "match": 'resource.attributes["service.name"] == "gateway" and span.name == "POST /orders"',
            "expect": ["gateway", "payment", "shipping"],
            "labels": {"tenant": 'span.attributes["tenant"]'},
            "slo": {"latency": "1s", "objective": 99},
        },
        {"name": "refund", "slo": {"latency": "1s", "objective": 99}},
    ],
    "defaults": {
        "quiet_period": "1s",
        "linger": "1s",
        "parent_wait": "1s",
        "async_wait": "1s",
        "max_age": "5s",
    },
    # Longer than two scrapes, so that Prometheus meets every new series at 0 first.
    "metrics": {"zero_first": "3s", "series_per_family": 20},
    # So low that they are reached.
    "limits": {"events_per_instance": 20, "tombstones": 100},
}

# Alerts that have no rows here even without their thresholds, and what must have rows instead.
WITHOUT_ROWS = {
    # An aggregator is there.
    "LatencyAggregatorAbsent": "latency_aggregator_build_info",
    # Nothing is evicted before the process ends.
    "LatencyAggregatorEvictsFlows": 'flow_closed_total{outcome="evicted"}',
    # There is neither a certificate nor a token.
    "LatencyAggregatorSecretRefused": "latency_aggregator_config_last_reload_successful",
}
# Alerts that the data sent here must set off: they wait for their `for` then.
SET_OFF = {
    "FlowBurnsErrorBudget",
    "FlowEventsLate",
    "FlowInPieces",
    "LatencyAggregatorForgetsEarly",
    "LatencyAggregatorRefusesEvents",
    "LatencyAggregatorSeriesOverflow",
}


def check_every_query_of_dashboard_and_rules_returns_rows():
    dashboard = (EXAMPLES / "dashboard.json").read_text()
    rules = (EXAMPLES / "rules.yml").read_text()
    narrowed = printed("rules", CONFIG)
    with (
        aggregator(**CONFIG) as running,
        prometheus(running, rules=rules) as server,
        prometheus(running, rules=narrowed) as narrow,
    ):
        # Twice, since a rate cannot see the first value of a counter that was not there before.
        for _ in range(2):
            send_everything(running)
        for flow in (".+", FLOW, "|".join(flows_to_choose_from())):
            expect_rows(server, dashboard_queries(dashboard, flow))
        for one in (server, narrow):
            expect_rows(one, rule_queries(one))
            expect_set_off(one)
        for instead in WITHOUT_ROWS.values():
            expect(server.rows(instead), f"{instead} has no rows")
        expect_equal(running.scrape().unaccounted(), 0, "events that are counted nowhere or twice")
        server.expect_every_scrape_worked()


def flows_to_choose_from():
    """The flows that the dashboard of the config offers; its queries are those of the file."""
    narrowed = printed("dashboard", CONFIG)
    dashboard = (EXAMPLES / "dashboard.json").read_text()
    expect_equal(dashboard_queries(narrowed, ""), dashboard_queries(dashboard, ""), "queries")
    variables = json.loads(narrowed)["templating"]["list"]
    (flow,) = (variable for variable in variables if variable["name"] == "flow")
    return flow["query"].split(",")


def dashboard_queries(text, flow):
    """Of each query of a dashboard, as Grafana sends it when this flow is chosen: where it
    stands, the query, and the labels that its legend needs."""
    variables = {
        "$__rate_interval": "1m",
        "$__range": "5m",
        "$job": ".+",
        "$instance": ".+",
        "$flow": flow,
    }
    queries = []
    for panel in json.loads(text)["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"]
            for name, value in variables.items():
                expression = expression.replace(name, value)
            expect("$" not in expression, f"{expression} has an unknown variable")
            labels = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            queries.append((panel["title"], expression, labels))
    expect(len(queries) > 50, f"only {len(queries)} queries on the dashboard")
    return queries


def rule_queries(server):
    """Of each rule: its name, its query without thresholds, and the labels that its texts need."""
    queries = []
    for rule in server.rules():
        if rule["name"] not in WITHOUT_ROWS:
            without_thresholds = re.sub(r" ([<>]=?|==) [\d.]+", "", rule["query"])
            texts = " ".join(rule.get("annotations", {}).values())
            labels = set(re.findall(r"\$labels\.(\w+)", texts))
            queries.append((rule["name"], without_thresholds, labels))
    return queries


def expect_set_off(server):
    """Prometheus can evaluate every rule, and the data set off the alerts it should."""

    def active():
        rules = server.rules()
        broken = {rule["name"]: rule.get("lastError") for rule in rules if rule["health"] != "ok"}
        expect_equal(broken, {}, "rules that Prometheus cannot evaluate")
        return {rule["name"] for rule in rules if rule.get("alerts")}

    eventually(active, SET_OFF, "alerts that are pending or firing")


def expect_rows(server, queries):
    """Every query has a row that is a number and has the labels that it needs."""

    def has_row(query, labels):
        return any(
            labels <= row["metric"].keys() and not math.isnan(float(row["value"][1]))
            for row in server.series(query)
        )

    def without_rows():
        return [(name, query) for name, query, labels in queries if not has_row(query, labels)]

    eventually(without_rows, [], "queries without rows", timeout=20)


def send_everything(running):
    """Traces of all kinds, events that come too late, and more pushes than some limits allow."""

    def wait_for_more(name, before, more):
        eventually(lambda: running.scrape().total(name), before + more, name, alive=running)

    before = running.scrape()
    closed, late = "flow_closed_total", "latency_aggregator_late_events_total"
    quick = send_order(running)
    send_order(running, seconds=3)
    send_order(running, failed=True)
    send_order(running, lost_root=True)
    send_order(running, ahead=0.2)
    send_order(running, shipped=False)
    send_batch(running, spans=25)
    wait_for_more(closed, before.total(closed), 7)
    # Before the pushes take the room of the order's tombstone.
    late_spans = [("shipping", number, "05", "late", 1, 0, 4) for number in ("06", "07", "08")]
    send_spans(running, quick, late_spans)
    wait_for_more(late, before.total(late), len(late_spans))
    pushes = [
        {
            "id": f"parcel-{time.time_ns()}-{street}",
            "name": "parcel",
            "stage": "sent",
            "final": True,
            "label_values": {"street": str(street)},
        }
        for street in range(60)
    ]
    status, reply = running.push(pushes)
    expect_equal((status, reply["status"]), (200, "ok"), f"reply {reply}")
    wait_for_more(closed, before.total(closed), 7 + len(pushes))


def send_order(running, seconds=0.5, failed=False, lost_root=False, ahead=0, shipped=True):
    """An order that takes so long, of which payment's clock is so far ahead; returns its trace id."""
    trace = os.urandom(16).hex()
    root = "0f" if lost_root else ""
    spans = [
        ("gateway", "01", root, "POST /orders", 2, 0, 0.3),
        ("gateway", "02", "01", "charge", 3, 0.05, 0.25),
        ("payment", "03", "02", "POST /charge", 2, 0.1 + ahead, 0.2 + ahead),
    ]
    if shipped:
        spans.append(("payment", "04", "03", "orders send", 4, 0.12 + ahead, 0.15 + ahead))
        spans.append(("shipping", "05", "04", "orders process", 5, seconds - 0.05, seconds))
    send_spans(running, trace, spans, status={"code": 2} if failed else {})
    return trace


def send_batch(running, spans):
    """One trace with so many spans."""
    numbers = [f"{number:02x}" for number in range(1, spans + 1)]
    batch = [("batch", number, "01" if number != "01" else "", "work", 1, 0, 1) for number in numbers]
    send_spans(running, os.urandom(16).hex(), batch)


def send_spans(running, trace, spans, status=None):
    """Spans as (service, id, parent, name, kind, start, end), in seconds after a start of 10 s ago."""
    began = time.time() - 10

    def made(service, number, parent, name, kind, start, end):
        times = [int((began + seconds) * 1e9) for seconds in (start, end)]
        made = span(trace, number * 8, parent * 8, name, kind, *times)
        made["attributes"] = [{"key": "tenant", "value": {"stringValue": "blue"}}]
        made["status"] = status or {}
        return resource_spans(service, [made])

    body = {"resourceSpans": [made(*described) for described in spans]}
    code, reply = post_json(f"http://{running.otlp_http}/v1/traces", json.dumps(body).encode())
    expect_equal(code, 200, f"status of the export, reply {reply!r}")
