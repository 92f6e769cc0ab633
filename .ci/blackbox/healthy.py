"""A client that behaves: one push and one export after the other, on two connections that it keeps.

    python healthy.py PUSH_PORT OTLP_HTTP_PORT

SIGTERM ends it; then it prints as JSON how many requests were accepted, what was wrong with the
others, and how many milliseconds each took. A program of its own, so that an attack that keeps
its own Python busy does not show in these times.
"""

import http.client
import json
import os
import signal
import sys
import time

PAUSE_SECONDS = 0.01
# What invites to send the same again, which is done at once, and still counts as waiting.
RETRYABLE = (429, 503)
PATIENCE_SECONDS = 60
FLOW = "healthy_order"


def main(push_port, otlp_port):
    waiting = True

    def stop(_signal, _frame):
        nonlocal waiting
        waiting = False

    signal.signal(signal.SIGTERM, stop)
    push = http.client.HTTPConnection("127.0.0.1", push_port, timeout=30)
    otlp = http.client.HTTPConnection("127.0.0.1", otlp_port, timeout=30)
    accepted, milliseconds, failures = 0, [], []
    while waiting:
        for connection, path, body in [
            (push, "/", event(accepted)),
            (otlp, "/v1/traces", trace()),
        ]:
            began = time.monotonic()
            try:
                accepted += post(connection, path, body)
            except (OSError, http.client.HTTPException, ValueError) as failure:
                failures.append(repr(failure))
                connection.close()
            milliseconds.append(round((time.monotonic() - began) * 1000, 3))
        time.sleep(PAUSE_SECONDS)
    report = {"accepted": accepted, "failures": failures, "milliseconds": milliseconds}
    print(json.dumps(report), flush=True)


def post(connection, path, body):
    """1; what is not accepted in the end raises."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        reply = connection.getresponse()
        text = reply.read().decode(errors="replace")
        if reply.status == 200:
            return 1
        if reply.status not in RETRYABLE or time.monotonic() > deadline:
            raise ValueError(f"{path} answered {reply.status}: {text[:200]}")
        time.sleep(PAUSE_SECONDS)


def event(number):
    return {"id": f"healthy-{os.getpid()}-{number}", "name": FLOW, "stage": "done", "final": True}


def trace():
    now = time.time_ns()
    span = {
        "traceId": os.urandom(16).hex(),
        "spanId": os.urandom(8).hex(),
        "name": "GET /healthy",
        "kind": 2,
        "startTimeUnixNano": str(now - 1_000_000),
        "endTimeUnixNano": str(now),
    }
    service = {"key": "service.name", "value": {"stringValue": "healthy"}}
    spans = {"resource": {"attributes": [service]}, "scopeSpans": [{"spans": [span]}]}
    return {"resourceSpans": [spans]}


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
