"""Clients as SDKs are: each has one connection, and sends again what was not acknowledged."""

import http.client
import json
import os
import random
import threading
import time

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc  # noqa: E402
from lib import expect, expect_equal  # noqa: E402
from load import Pushes, Traces  # noqa: E402

PAUSE_SECONDS = 0.02
# How long one request may take with all of its attempts, and one attempt.
PATIENCE_SECONDS = 60
ATTEMPT_SECONDS = 10
# Stock clients wait as long as they are told to; ours are in a hurry.
MOST_WAIT_SECONDS = 0.5

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
RETRYABLE = {
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
}


class Refused(Exception):
    """An answer that says that sending it again is of no use."""


class Again(Exception):
    """No answer, or one that invites to send it again."""


class HttpWay:
    """OTLP over HTTP as protobuf, or native pushes."""

    def __init__(self, port, path, content_type):
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ATTEMPT_SECONDS)
        self._path, self._content_type = path, content_type

    def send(self, body):
        try:
            self._connection.request("POST", self._path, body, {"content-type": self._content_type})
            reply = self._connection.getresponse()
            text = reply.read()
        except (OSError, http.client.HTTPException) as broken:
            self.close()
            raise Again(repr(broken)) from broken
        if reply.status in (429, 502, 503, 504):
            raise Again(str(reply.status))
        if reply.status != 200 or not self._is_whole(text):
            raise Refused(f"{self._path} answered {reply.status}: {text[:200]}")

    def close(self):
        self._connection.close()

    def _is_whole(self, text):
        """Without a partial success."""
        if self._path == "/":
            return json.loads(text)["status"] == "ok"
        return text == b""


class GrpcWay:
    """OTLP over gRPC, by Google's client."""

    def __init__(self, port):
        options = [
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 300),
        ]
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=options)
        self._export = self._channel.unary_unary(EXPORT)

    def send(self, body):
        try:
            reply = self._export(body, timeout=ATTEMPT_SECONDS)
        except grpc.RpcError as error:
            trailers = dict(error.trailing_metadata() or ())
            with_advice = "grpc-status-details-bin" in trailers
            exhausted = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and with_advice
            if error.code() in RETRYABLE or exhausted:
                raise Again(f"{error.code().name}: {error.details()}") from error
            raise Refused(f"{error.code()}: {error.details()}") from error
        if reply != b"":
            raise Refused(f"a partial success: {reply[:200]}")

    def close(self):
        self._channel.close()


class Sender(threading.Thread):
    """One client, until it is stopped; what it has begun then it brings to its end."""

    def __init__(self, way, flows, ledger, times=1):
        super().__init__(daemon=True)
        self._way, self._flows, self._ledger, self._times = way, flows, ledger, times
        self._stopped = threading.Event()
        self.milliseconds = []
        self.retries = []
        self.failure = None
        self.requests = 0

    def run(self):
        try:
            while not self._stopped.wait(PAUSE_SECONDS):
                batch = self._flows.batch()
                for request in batch.requests:
                    for _ in range(self._times):
                        self._deliver(request)
                self._ledger.acknowledged(batch)
        except Exception as failure:  # Whatever it is, the scenario must hear of it.
            self.failure = failure
        finally:
            self._way.close()

    def stop(self):
        self._stopped.set()

    def _deliver(self, request):
        began, attempt = time.monotonic(), 0
        while True:
            sent = time.monotonic()
            try:
                self._way.send(request)
                break
            except Again as reason:
                self.retries.append(str(reason))
                if time.monotonic() - began > PATIENCE_SECONDS:
                    raise Refused(f"not acknowledged in {PATIENCE_SECONDS} s: {reason}") from reason
                wait = min(MOST_WAIT_SECONDS, 0.02 * 2**attempt)
                time.sleep(wait * random.uniform(0.5, 1))
                attempt += 1
        self.milliseconds.append((time.monotonic() - sent) * 1000)
        self.requests += 1


class Senders:
    """One of each way in. `with` starts them; `finish` stops them and looks at what they met."""

    def __init__(self, ports, ledger, is_split=True, times=1):
        ways = [
            (HttpWay(ports["otlp_http"], "/v1/traces", "application/x-protobuf"), Traces(is_split)),
            (GrpcWay(ports["otlp_grpc"]), Traces(is_split)),
            (HttpWay(ports["http"], "/", "application/json"), Pushes(is_split)),
        ]
        self._all = [Sender(way, flows, ledger, times) for way, flows in ways]

    def __enter__(self):
        for sender in self._all:
            sender.start()
        return self

    def __exit__(self, *_error):
        for sender in self._all:
            sender.stop()
        for sender in self._all:
            sender.join(PATIENCE_SECONDS + ATTEMPT_SECONDS)

    def finish(self):
        """All that was begun is acknowledged now, or the scenario fails."""
        self.__exit__()
        for sender in self._all:
            expect(not sender.is_alive(), "a sender does not end")
            expect(sender.failure is None, f"a client was refused: {sender.failure!r}")
            expect(sender.requests > 0, "a client got nothing through")
        return self

    @property
    def requests(self):
        return sum(sender.requests for sender in self._all)

    @property
    def retries(self):
        return [reason for sender in self._all for reason in sender.retries]

    def p99(self):
        """Of the attempts that were acknowledged, in milliseconds."""
        times = sorted(each for sender in self._all for each in sender.milliseconds)
        return times[int(len(times) * 0.99)]

    def expect_no_retries(self, what):
        expect_equal(self.retries[:3], [], f"requests that had to be sent again {what}")
