"""What the checks of attacks share: what an attack costs the server, and who else feels it.

Bounds are generous, for the machine may be busy; what a removed defence costs is far beyond them.
"""

import json
import resource
import select
import socket
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from lib import Process, aggregator, eventually, expect, expect_equal, get
from procfs import Usage

# What all attacks but those that say otherwise may cost.
RSS_MIB = 64
CPU_SECONDS = 4
HEALTHY_P99_MS = 1000


def attacked(**config):
    """An aggregator with timers so short that nobody waits for them after an attack."""
    return aggregator(**{"defaults": {"quiet_period": "300ms", "linger": "300ms"}} | config)


class Healthy(Process):
    """The healthy client, which goes on while an attack does."""

    def __init__(self, running):
        script = Path(__file__).parent / "healthy.py"
        ports = [running.ports["http"], running.ports["otlp_http"]]
        super().__init__("healthy", [sys.executable, script, *ports])
        self._running = running
        self._before = self._received()

    def __enter__(self):
        eventually(lambda: self._received() > self._before, True, "a healthy client", alive=self)
        return self

    def finish(self):
        """The milliseconds in which 99 of 100 requests were answered; all were accepted."""
        self.terminate()
        expect_equal(self.wait(timeout=40), 0, "exit code of the healthy client")
        report = json.loads(self.output())
        failures, accepted = report["failures"], report["accepted"]
        expect(not failures, f"{len(failures)} requests of a healthy client failed: {failures[:3]}")
        expect(accepted > 0, "no request of a healthy client was accepted")
        return percentile(report["milliseconds"], 0.99), accepted

    def _received(self):
        return self._running.scrape().total("latency_aggregator_events_received_total")


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


@contextmanager
def withstood(running, what, rss_mib=RSS_MIB, cpu_seconds=CPU_SECONDS, p99_ms=HEALTHY_P99_MS):
    """Around an attack: fails when it cost the server or a healthy client more than this."""
    usage = Usage(running.process_id)
    with Healthy(running) as healthy:
        usage.forget_peak()
        memory, processor, began = usage.rss_mib(), usage.cpu_seconds(), time.monotonic()
        yield
        expect(running.exit_code() is None, f"{what}: the server exited with {running.exit_code()}")
        seconds = time.monotonic() - began
        memory, processor = usage.peak_rss_mib() - memory, usage.cpu_seconds() - processor
        p99, accepted = healthy.finish()
    print(
        f"     {what}: {seconds:.1f} s, RSS {memory:+.0f} MiB (at most {rss_mib:.0f}), "
        f"processor {processor:.2f} s (at most {cpu_seconds:g}), "
        f"healthy p99 {p99:.1f} ms of {accepted} requests (at most {p99_ms})",
        flush=True,
    )
    expect(memory <= rss_mib, f"{what}: memory grew by {memory:.0f} MiB, at most {rss_mib:.0f}")
    expect(processor <= cpu_seconds, f"{what}: took {processor:.1f} s, at most {cpu_seconds}")
    expect(p99 <= p99_ms, f"{what}: p99 of a healthy client was {p99:.0f} ms, at most {p99_ms}")
    scrape = running.settle()
    expect_equal(scrape.unaccounted(), 0, f"{what}: events that are counted nowhere or twice")
    expect_equal(scrape.unaccounted_instances(), 0, f"{what}: the same of instances")


def widened(running):
    """Makes the page larger; returns how many MiB it has then."""
    for flow in range(10):
        pushes = [
            {"id": str(n), "name": f"wide_{flow}", "final": True, "label_values": {"l": f"{n:060}"}}
            for n in range(100)
        ]
        expect_equal(running.push(pushes)[0], 200, "status of the pushes")
    running.settle()
    return len(get(running.metrics_url)[1]) / (1 << 20)


def is_writable(connection):
    """Whether it becomes so within a second."""
    poll = select.poll()
    poll.register(connection, select.POLLOUT)
    return bool(poll.poll(1000))


class Crowd:
    """Many connections to one port, none of which is ever waited for."""

    def __init__(self, port, count, receive_bytes=None):
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        self._sockets = [socket.socket() for _ in range(count)]
        self.ended = 0
        has_room = True
        for connection in self._sockets:
            if receive_bytes is not None:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            connection.setblocking(False)
            connection.connect_ex(("127.0.0.1", port))
            # Room that there is, is had at once; without it they wait in the kernel.
            has_room = has_room and is_writable(connection)

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.close()

    def close(self):
        for each in self._sockets:
            each.close()
        self._sockets = []

    def send(self, data):
        """To all that are open; what does not fit into a buffer is lost."""
        self._each(lambda connection: connection.send(data))

    def read(self, most_bytes=1 << 16):
        """Reads what has come, and notices who was closed; returns how many are open."""

        def read(connection):
            if not connection.recv(most_bytes):
                raise ConnectionResetError

        self._each(read)
        return len(self._sockets)

    def _each(self, action):
        still_open = []
        for connection in self._sockets:
            try:
                action(connection)
                still_open.append(connection)
            except BlockingIOError:
                still_open.append(connection)
            except OSError:
                self.ended += 1
                connection.close()
        self._sockets = still_open
