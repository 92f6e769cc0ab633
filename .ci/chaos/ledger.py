"""What was acknowledged, and whether /metrics says the same: nothing lost, nothing twice."""

import threading
from collections import Counter

from lib import CheckFailed, eventually, expect_equal
from load import series

# How far a sum of latencies may be off: it is shown in seconds, as a float.
SECONDS_TOLERANCE = 1e-6


class Ledger:
    """Kept by all senders together."""

    def __init__(self):
        self._lock = threading.Lock()
        self.counts = Counter()
        self.milliseconds = Counter()
        self.events = 0

    def acknowledged(self, batch):
        with self._lock:
            self.events += batch.events
            for where, milliseconds in batch.flows:
                self.counts[where] += 1
                self.milliseconds[where] += milliseconds

    @property
    def flows(self):
        return sum(self.counts.values())


class Page:
    """The sums of one page of /metrics, or of the last pages of several processes."""

    def __init__(self, scrapes, flows):
        self.counts, self.closed, self.seconds = Counter(), Counter(), Counter()
        self._scrapes = scrapes
        for scrape in scrapes:
            self._add(scrape, "flow_latency_seconds_count", self.counts, flows)
            self._add(scrape, "flow_closed_total", self.closed, flows)
            self._add(scrape, "flow_latency_seconds_sum", self.seconds, flows)

    def total(self, name):
        return sum(scrape.total(f"latency_aggregator_{name}") for scrape in self._scrapes)

    def unaccounted(self):
        return sum(each.unaccounted() for each in self._scrapes)

    def unaccounted_instances(self):
        return sum(each.unaccounted_instances() for each in self._scrapes)

    def _add(self, scrape, name, to, flows):
        for sample in scrape.series(name):
            labels = dict(sample.labels)
            labels.pop("reason", None)
            flow, outcome = labels.pop("flow"), labels.pop("outcome")
            if flow in flows and sample.value:
                to[series(flow, outcome, labels)] += sample.value


def expect_same(ledger, scrapes, foreign=False):
    """Counts and sums of each series are the ledger's; `foreign`: there may be other ones, too."""
    page = Page(scrapes, {where.flow for where in ledger.counts})
    for name, shown in [
        ("flow_latency_seconds_count", page.counts),
        ("flow_closed_total", page.closed),
    ]:
        expect_equal(differences(ledger.counts, shown, foreign), {}, f"differences of {name}")
    wrong = {
        where: (milliseconds / 1000, page.seconds[where])
        for where, milliseconds in ledger.milliseconds.items()
        if abs(page.seconds[where] - milliseconds / 1000) > SECONDS_TOLERANCE * ledger.counts[where]
    }
    expect_equal(wrong, {}, "sums of latencies, expected and shown, that differ")
    expect_equal(page.unaccounted(), 0, "events that are counted nowhere or twice")
    expect_equal(page.unaccounted_instances(), 0, "instances that are counted nowhere or twice")
    if not foreign:
        # What was acknowledged is in closed instances; what came again is not.
        expect_equal(page.total("events_closed_total"), ledger.events, "events of closed instances")
    return page


def differences(expected, shown, foreign):
    """`series: lost or counted twice`, for a few of them."""
    keys = expected.keys() if foreign else expected.keys() | shown.keys()
    wrong = {}
    for where in keys:
        more = shown[where] - expected[where]
        if more:
            what = f"{more:g} more than acknowledged" if more > 0 else f"{-more:g} lost"
            wrong[f"{where.flow} {where.outcome} {dict(where.labels)}"] = what
    return dict(list(wrong.items())[:5]) | ({"and so on": len(wrong)} if len(wrong) > 5 else {})


def eventually_same(ledger, running, foreign=False, timeout=30):
    """When the quiet periods have passed; a new series shows 0 at first."""
    running.settle()
    pages = []

    def same():
        try:
            pages.append(expect_same(ledger, [running.scrape()], foreign))
        except CheckFailed as failure:
            return str(failure)
        return ""

    eventually(same, "", "ledger and /metrics", timeout=timeout, alive=running)
    return pages[-1]
