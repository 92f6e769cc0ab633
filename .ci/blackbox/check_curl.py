"""A shell script with curl: protobuf-JSON to /v1/traces, and native pushes."""

import json
import os
import time

from lib import aggregator, eventually, expect, expect_close, expect_equal, rfc3339, run, tool


def check_otlp_json_becomes_a_latency():
    with aggregator() as running:
        trace_id, root_id, child_id = os.urandom(16).hex(), os.urandom(8).hex(), os.urandom(8).hex()
        start = time.time_ns() - 3_000_000_000
        root = span(trace_id, root_id, "", "POST /orders", 2, start, start + 500_000_000)
        # JSON may carry 64-bit times as strings or as numbers, and ids in either case.
        child = span(trace_id.upper(), child_id, root_id, "ship", 1, start, start + 2_250_000_000)
        child["endTimeUnixNano"] = int(child["endTimeUnixNano"])
        body = {
            "resourceSpans": [
                resource_spans("gateway", [root]),
                resource_spans("shipping", [child]),
            ]
        }

        status, reply = curl(f"http://{running.otlp_http}/v1/traces", json.dumps(body))
        expect_equal(status, 200, f"status of the export, reply {reply!r}")
        expect("partialSuccess" not in reply or "rejectedSpans" not in reply, f"rejected: {reply}")

        wait_for_count(running, 1, flow="trace", outcome="ok", root_service="gateway")
        scrape = running.settle()
        expect_equal(scrape.received(), 2, "events received")
        expect_close(
            scrape.total("flow_latency_seconds_sum", flow="trace"),
            2.25,
            1e-6,
            "latency of the trace",
        )


def check_three_pushes_become_a_latency():
    with aggregator() as running:
        placed = int(time.time()) - 10
        for offset, stage in enumerate(["placed", "paid", "shipped"]):
            body = {
                "id": "order-1",
                "name": "order_curl",
                "stage": stage,
                "created_at": rfc3339(placed + offset),
                "life_span": 1,
            }
            if stage == "placed":
                body["help"] = "Time from order placed to order shipped"
            status, reply = curl(running.http + "/", json.dumps(body))
            expect_equal(status, 200, f"status of the push, reply {reply!r}")
            expect_equal(json.loads(reply)["status"], "ok", "reply to the push")

        wait_for_count(running, 1, flow="order_curl", outcome="ok")
        scrape = running.settle()
        expect_equal(scrape.received(), 3, "events received")
        expect_close(
            scrape.total("flow_latency_seconds_sum", flow="order_curl"),
            2,
            1e-6,
            "latency of the flow",
        )
        expect_equal(scrape.total("order_curl_count"), 1, "count of the push's own histogram")
        expect_close(scrape.total("order_curl_sum"), 2, 1e-6, "sum of the push's own histogram")
        expect(
            "# HELP order_curl Time from order placed to order shipped\n" in scrape.text,
            "the help text of the first push is not in /metrics",
        )


def check_the_push_command_sends_an_event():
    with aggregator() as running:
        code, output = run(
            [
                tool("AGGREGATOR_BINARY"),
                "push",
                f"--url={running.http}/",
                "--id=order-2",
                "--name=order_push",
                "--stage=placed",
                "--final",
            ]
        )
        expect_equal(code, 0, f"exit code of push, which said {output}")
        wait_for_count(running, 1, flow="order_push", outcome="ok")


def wait_for_count(running, count, **labels):
    eventually(
        lambda: running.scrape().total("flow_latency_seconds_count", **labels),
        count,
        f"observations with {labels}",
        alive=running,
    )


def curl(url, body):
    """The status and the body of the reply to a POST by the real curl."""
    code, output = run(
        ["curl", "-sS", "--max-time", "10", "--header", "Content-Type: application/json"]
        + ["--data-binary", "@-", "--write-out", "\n%{http_code}", url],
        stdin=body,
    )
    expect_equal(code, 0, f"exit code of curl, which said {output}")
    reply, _, status = output.rpartition("\n")
    return int(status), reply


def resource_spans(service, spans):
    return {
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]},
        "scopeSpans": [{"scope": {"name": "curl"}, "spans": spans}],
    }


def span(trace_id, span_id, parent_id, name, kind, start, end):
    return {
        "traceId": trace_id,
        "spanId": span_id,
        "parentSpanId": parent_id,
        "name": name,
        "kind": kind,
        "startTimeUnixNano": str(start),
        "endTimeUnixNano": str(end),
        "attributes": [],
        "status": {},
    }
