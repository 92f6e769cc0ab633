"""Every format of /metrics, read by Prometheus' own parsers and by two releases of Prometheus."""

import json
import os
import time

from prometheus_client.openmetrics.parser import text_string_to_metric_families

import hostile
from check_curl import resource_spans, span
from lib import (
    CheckFailed,
    aggregator,
    eventually,
    expect,
    expect_close,
    expect_equal,
    get,
    post_json,
    push_flow,
    run,
    telemetrygen,
    tool,
)
from prometheus import prometheus

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
TEXT_PROTOCOLS = [
    "OpenMetricsText1.0.0",
    "OpenMetricsText0.0.1",
    "PrometheusText1.0.0",
    "PrometheusText0.0.4",
]

# The default of metrics.native_factor: a value is at most so far from the bounds of its bucket.
NATIVE_FACTOR = 1.1

NATIVE_JOB = {"scrape_protocols": ["PrometheusProto"], "scrape_native_histograms": True}

FLOWS = [
    # It never ends, because nobody sends the last stage.
    {"name": "delivery", "expect": ["placed", "delivered"], "max_age": "3s"},
    # It has what a flow need not have: labels, a promise, and families of its own.
    {
        "name": "checkout",
        "match": 'resource.attributes["service.name"] == "gateway"',
        "metric": "checkout_seconds",
        "labels": {"tenant": "span.name"},
        "slo": {"latency": "5s", "objective": 99.9},
        "stage_buckets": {"gateway": [0.125, 1000000]},
    },
]

# So narrow that series overflow, and native buckets become coarser.
NARROW = {
    "zero_first": "1s",
    "series_per_family": 20,
    "values_per_label": 10,
    "native_buckets": 20,
    "critical_path_histogram": True,
}


def check_all_formats_say_the_same_with_classic_histograms():
    counts = scrapecheck_with_data("classic")
    expect(counts["classic"] > 0, f"no histograms: {counts}")
    expect_equal(counts["native"] + counts["both"], 0, f"native histograms in {counts}")


def check_all_formats_say_the_same_with_native_histograms():
    counts = scrapecheck_with_data("native")
    expect(counts["native"] > 0, f"no native histograms: {counts}")
    expect_equal(counts["both"], 0, f"histograms of both kinds in {counts}")


def check_all_formats_say_the_same_with_both_kinds_of_histograms():
    counts = scrapecheck_with_data("both")
    expect(counts["both"] > 0, f"no histograms of both kinds: {counts}")
    expect_equal(counts["native"], 0, f"histograms without classic buckets in {counts}")


def check_an_independent_parser_reads_openmetrics():
    with aggregator(flows=FLOWS) as running:
        send_all_shapes(running)
        running.settle()
        status, text = get(running.metrics_url, headers={"Accept": OPENMETRICS})
        expect_equal(status, 200, "status of OpenMetrics")
        families = list(text_string_to_metric_families(text))
        expect(len(families) > 20, f"only {len(families)} families")


def check_every_scrape_protocol_gives_prometheus_the_same_series():
    # With this feature `_created` is not taken for a series.
    features = ["created-timestamp-zero-ingestion"]
    protocols = [*TEXT_PROTOCOLS, "PrometheusProto"]
    jobs = [{"job_name": protocol, "scrape_protocols": [protocol]} for protocol in protocols]
    with (
        aggregator(flows=FLOWS) as running,
        prometheus(running, program="PROMETHEUS_CURRENT", features=features, jobs=jobs) as server,
    ):
        send_all_shapes(running)
        running.settle()
        open_flows = f'sum(flow_open{{job="{protocols[0]}"}})'
        eventually(lambda: server.query(open_flows), 0, open_flows, alive=server)
        found = len(flow_values(server, protocols[0]))
        expect(found > 500, f"only {found} series")
        for protocol in protocols[1:]:
            expect_same_values(server, protocol, protocols[0])
        server.expect_every_scrape_worked()


def check_the_current_prometheus_answers_on_native_histograms():
    for histograms in ["native", "both"]:
        with (
            aggregator(metrics={"zero_first": "3s", "histograms": histograms}) as running,
            prometheus(running, program="PROMETHEUS_CURRENT", jobs=[NATIVE_JOB]) as server,
        ):
            expect_native_answers(running, server)


def check_debians_prometheus_answers_on_native_histograms():
    with (
        aggregator(metrics={"zero_first": "3s", "histograms": "both"}) as running,
        prometheus(running, features=["native-histograms"]) as server,
    ):
        expect_native_answers(running, server)


def check_exemplars_of_openmetrics_are_found_in_prometheus():
    expect_exemplars("flow_latency_seconds_bucket", "classic", {"scrape_protocols": TEXT_PROTOCOLS})


def check_exemplars_of_native_histograms_are_found_in_prometheus():
    expect_exemplars("flow_latency_seconds", "native", NATIVE_JOB)


def check_series_begin_at_zero_when_they_were_created():
    features = ["created-timestamp-zero-ingestion"]
    jobs = [
        {**NATIVE_JOB, "job_name": "native"},
        {"job_name": "protobuf", "scrape_protocols": ["PrometheusProto"]},
        {"job_name": "text", "scrape_protocols": ["OpenMetricsText1.0.0"]},
    ]
    with (
        aggregator(metrics={"zero_first": "0s", "histograms": "both"}) as running,
        prometheus(running, program="PROMETHEUS_CURRENT", features=features, jobs=jobs) as server,
    ):
        send_traces(running, {new_id(16): 0.7})
        running.settle()
        for job, name in [
            ("native", "flow_latency_seconds"),
            ("native", "flow_closed_total"),
            ("protobuf", "flow_closed_total"),
            ("protobuf", "flow_latency_seconds_count"),
            ("text", "flow_closed_total"),
            ("text", "flow_latency_seconds_count"),
        ]:
            expect_born_at_zero(running, server, name, job)
        server.expect_every_scrape_worked()


def scrapecheck_with_data(histograms):
    """Checks before, amid and after the data, and returns the counts of the last time."""
    with aggregator(metrics={**NARROW, "histograms": histograms}, flows=FLOWS) as running:
        scrapecheck(running)
        send_all_shapes(running)
        scrapecheck(running)
        unaccounted = running.settle().unaccounted()
        expect_equal(unaccounted, 0, "events that are counted nowhere or twice")
        counts = scrapecheck(running)
        for what in ["exemplars", "starts", "comparisons"]:
            expect(counts[what] > 0, f"no {what} in {counts}")
        return counts


def scrapecheck(running):
    """The counts that scrapecheck prints when nothing is wrong."""
    code, output = run([tool("SCRAPECHECK"), running.metrics_url])
    expect_equal(code, 0, f"exit code of scrapecheck, which said:\n{output}")
    _, _, counts = output.partition(": ok ")
    return {name: int(count) for name, count in (word.split("=") for word in counts.split())}


def send_all_shapes(running):
    """Traces, pushes, flows that never end, and what would break a careless /metrics."""
    telemetrygen(running.otlp_grpc, traces=20)
    send_traces(running, {new_id(16): 0.001 * 1.4**number for number in range(40)})
    for number in range(20):
        send_traces(running, {new_id(16): number}, "gateway", f"tenant {number}")
    send_endless_traces(running)
    for number in range(5):
        push_flow(running, "payment", f"payment-{number}", 0.1 * number)
    push_flow(running, "crawl", "crawl-1", 30, buckets=[0.0000001, 0.5, 29, 1000000, 123456789])
    running.push({"id": "1", "name": "delivery", "stage": "placed"})
    for push in hostile.PUSHES:
        running.push(push)
    eventually(
        lambda: running.scrape().total("flow_closed_total", outcome="incomplete"),
        1,
        "flows that never ended",
        alive=running,
    )


def send_endless_traces(running):
    """Latencies of so many nanoseconds that a float64 does not have all their digits."""
    now = time.time_ns()
    starts = range(1_234_567_891, 40_000_000_000, 1_234_567_891)
    spans = [root_span(new_id(16), f"job {start}", start, now) for start in starts]
    send_spans(running, "clockless", spans)


def send_traces(running, latencies, service="shop", name="GET /"):
    """One span for each trace id, which lasts so many seconds."""
    now = time.time_ns()
    spans = [
        root_span(trace, name, now - round(seconds * 1e9), now)
        for trace, seconds in latencies.items()
    ]
    send_spans(running, service, spans)


def root_span(trace, name, start, end):
    server = 2
    return span(trace, new_id(8), "", name, server, start, end)


def new_id(size):
    return os.urandom(size).hex()


def send_spans(running, service, spans):
    body = {"resourceSpans": [resource_spans(service, spans)]}
    status, reply = post_json(f"http://{running.otlp_http}/v1/traces", json.dumps(body).encode())
    expect_equal(status, 200, f"status of the export, reply {reply!r}")


def flow_values(server, job):
    """The value of each series that only a flow can change, by its labels without the job."""
    names = "flow_.+|order.*|payment.*|delivery.*"
    values = {}
    for series in server.series(f'{{job="{job}",__name__=~"{names}"}}'):
        labels = {name: value for name, value in series["metric"].items() if name != "job"}
        values[frozenset(labels.items())] = float(series["value"][1])
    return values


def expect_same_values(server, job, other):
    """A failure shows three of the series that differ."""

    def differences():
        # Both anew: a page is not of one moment, and the first one without an open flow may be without its values.
        values, expected = flow_values(server, job), flow_values(server, other)
        keys = [key for key in values | expected if values.get(key) != expected.get(key)]
        return [(dict(key), values.get(key), expected.get(key)) for key in keys[:3]]

    eventually(differences, [], f"differences between {job} and {other}")


def expect_native_answers(running, server):
    for number in range(18):
        push_flow(running, "quick_order", f"order-{number}", 0.7)
    for number in range(18, 20):
        push_flow(running, "quick_order", f"order-{number}", 42)
    selector = 'flow_latency_seconds{flow="quick_order"}'
    count = f"histogram_count(sum({selector}))"
    eventually(lambda: server.query(count), 20, count, alive=running)
    total = server.query(f"histogram_sum(sum({selector}))")
    expect_close(total, 18 * 0.7 + 2 * 42, 1e-6, "sum of the latencies")
    for quantile, seconds in [(0.5, 0.7), (0.95, 42)]:
        answer = server.query(f"histogram_quantile({quantile}, sum(rate({selector}[5m])))")
        expect_within_a_bucket(answer, seconds, f"quantile {quantile}")
    slow = server.query(f"histogram_fraction(10, +Inf, sum(rate({selector}[5m])))")
    expect_close(slow, 0.1, 1e-6, "fraction of flows that took more than 10 s")
    server.expect_every_scrape_worked()


def expect_within_a_bucket(actual, expected, what):
    expect(
        actual is not None and expected / NATIVE_FACTOR <= actual <= expected * NATIVE_FACTOR,
        f"{what}: expected {expected}, give or take a bucket, got {actual}",
    )


def expect_exemplars(selector, histograms, job):
    """The slowest trace of each bucket is found, with its latency, and no trace but those sent.

    They are of one label set: Prometheus 3.16 loses the exemplars of all native histograms of a
    family but the first that has any.
    """
    latencies = {new_id(16): seconds for seconds in [0.6, 0.7, 42, 43]}
    with (
        aggregator(metrics={"zero_first": "0s", "histograms": histograms}) as running,
        prometheus(
            running, program="PROMETHEUS_CURRENT", features=["exemplar-storage"], jobs=[job]
        ) as server,
    ):
        began = time.time()
        send_traces(running, latencies)
        running.settle()
        slowest = {trace for trace, seconds in latencies.items() if seconds in (0.7, 43)}
        eventually(
            lambda: slowest <= exemplars(server, selector, began).keys(),
            True,
            f"exemplars of {selector} with the traces {slowest}",
            alive=running,
        )
        for trace, value in exemplars(server, selector, began).items():
            expect_close(value, latencies.get(trace, 0), 1e-6, f"exemplar of trace {trace}")
        server.expect_every_scrape_worked()


def exemplars(server, selector, began):
    """The value of each exemplar, by its trace id."""
    answer = server.ask("query_exemplars", query=selector, start=began, end=time.time())
    return {
        exemplar["labels"]["trace_id"]: float(exemplar["value"])
        for series in answer
        for exemplar in series["exemplars"]
    }


def expect_born_at_zero(running, server, name, job):
    """The first sample is 0 at the time that the server tells, the next one is 1."""
    selector = f'{name}{{flow="trace",outcome="ok",job="{job}"}}'
    eventually(lambda: count_at_end(server, selector), 1, selector, alive=running)
    first_two = samples(server, selector)[:2]
    expect_equal([value for _, value in first_two], [0, 1], f"the first samples of {selector}")
    born, _ = first_two[0]
    expect_close(born, created(running, name), 0.002, f"time of the first sample of {selector}")


def count_at_end(server, selector):
    return samples(server, selector)[-1][1]


def samples(server, selector):
    """Time and value of all samples of one series; the value of a native histogram is its count."""
    series = server.series(f"{selector}[5m]")
    if len(series) != 1:
        raise CheckFailed(f"{selector} has {len(series)} series")
    plain = [(at, float(value)) for at, value in series[0].get("values", [])]
    native = [(at, float(value["count"])) for at, value in series[0].get("histograms", [])]
    return plain or native


def created(running, name):
    """The creation time that OpenMetrics has of the series, in seconds since 1970."""
    _, text = get(running.metrics_url, headers={"Accept": OPENMETRICS})
    family = name.removesuffix("_total").removesuffix("_count")
    times = [
        sample.value
        for found in text_string_to_metric_families(text)
        for sample in found.samples
        if sample.name == f"{family}_created"
        and {"flow": "trace", "outcome": "ok"}.items() <= sample.labels.items()
    ]
    expect_equal(len(times), 1, f"creation times of {name}")
    return times[0]
