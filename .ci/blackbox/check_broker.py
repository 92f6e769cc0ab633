"""Flows through a real broker, RabbitMQ, as OpenTelemetry's instrumentation of pika reports them.

This process's clock tells how long each message was in the queue. Prometheus has to agree.
"""

import time
from dataclasses import dataclass

from opentelemetry import propagate
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.pika import PikaInstrumentor
from opentelemetry.trace import Link, SpanKind, get_current_span

from check_sdk import Service
from lib import aggregator, eventually, expect_close, expect_equal
from prometheus import Prometheus
from rabbitmq import rabbitmq

# Two flows, since one that is folded to a stub while its message is in the queue is measured
# from less than one that is kept whole.
LIMITS = {"fold_from": 1}
FOLDED = {"name": "order", "match": 'span.name == "POST /orders"'}
WHOLE = {"name": "gift", "match": 'span.name == "POST /gifts"', "quiet_period": "30s"}
REQUESTS = [("order", "POST /orders"), ("gift", "POST /gifts")] * 2

QUEUE = "orders"
SECONDS_OF_WORK = 0.3
# Longer than the linger: nothing but the consumer that is missing keeps the flows open.
SECONDS_IN_QUEUE = 3


@dataclass
class Order:
    """One run of a flow by this process's clock, in seconds."""

    flow: str
    placed: float
    sent: float
    taken: float = 0
    shipped: float = 0


def check_the_time_in_the_queue_is_seen_in_prometheus():
    with aggregator(flows=[FOLDED, WHOLE], limits=LIMITS) as running, Prometheus(running) as server:
        with rabbitmq() as broker:
            orders = place_orders(broker, running)
            time.sleep(SECONDS_IN_QUEUE)
            expect_equal(running.scrape().total("flow_open"), len(orders), "flows in the queue")
            ship_one_by_one(broker, running, orders)

        expect_in_prometheus(server, orders)
        scrape = running.settle()
        expect_equal(scrape.total("flow_closed_total", outcome="ok"), len(orders), "ok flows")
        expect_equal(scrape.total("flow_closed_total"), len(orders), "flows of all outcomes")
        spans_of_an_order = 3
        expect_equal(scrape.received(), spans_of_an_order * len(orders), "events received")
        expect_all_accounted_for(scrape)
        coarse = sum(order.flow == FOLDED["name"] for order in orders)
        expect_equal(scrape.total("latency_aggregator_coarse_paths_total"), coarse, "coarse paths")
        server.expect_every_scrape_worked()


def check_a_batch_consumer_ends_each_of_its_flows():
    """One span works on all messages, in a trace of its own that only links to theirs.

    Each order has the latency of its own, and all of them share the work of that span. The
    span's own trace is no flow that anybody waited for.
    """
    with aggregator(flows=[FOLDED, WHOLE], limits=LIMITS) as running, Prometheus(running) as server:
        with rabbitmq() as broker:
            orders = place_orders(broker, running)
            time.sleep(SECONDS_IN_QUEUE)
            ship_together(broker, running, orders)

        expect_in_prometheus(server, orders)
        expect_seen(server, "flow_latency_seconds_count", len(orders), 0)
        expect_seen(server, "flow_closed_total", len(orders), 0, outcome="ok")
        expect_seen(server, "flow_closed_total", 1, 0, outcome="shared")
        expect_seen(server, "flow_closed_total", len(orders) + 1, 0)
        expect_seen(server, "flow_stage_seconds_count", 1, 0, stage="shipping")
        expect_seen(server, "flow_stage_seconds_sum", SECONDS_OF_WORK, 0.1, stage="shipping")
        scrape = running.settle()
        spans_of_an_order, spans_of_the_batch = 2, 1
        expected = spans_of_an_order * len(orders) + spans_of_the_batch
        expect_equal(scrape.received(), expected, "events received")
        expect_all_accounted_for(scrape)
        server.expect_every_scrape_worked()


def expect_in_prometheus(server, orders):
    for flow in sorted({order.flow for order in orders}):
        expect_flow_in_prometheus(server, flow, [order for order in orders if order.flow == flow])


def expect_flow_in_prometheus(server, flow, orders):
    """Prometheus knows how long the orders took, and how much of that was queue and work."""
    count = len(orders)
    latency = sum(order.shipped - order.placed for order in orders)
    selling = sum(order.sent - order.placed for order in orders)
    queued = sum(order.taken - order.sent for order in orders)
    shipping = sum(order.shipped - order.taken for order in orders)
    tolerance = 0.1 * count

    def seen(family, expected, tolerance, **labels):
        expect_seen(server, family, expected, tolerance, flow=flow, **labels)

    seen("flow_latency_seconds_count", count, 0, outcome="ok")
    seen("flow_latency_seconds_sum", latency, tolerance, outcome="ok")
    pair = {"from": "shop", "to": "shipping"}
    seen("flow_transition_seconds_count", count, 0, **pair)
    seen("flow_transition_seconds_sum", queued, tolerance, **pair)
    path = "flow_critical_path_seconds_total"
    seen(path, selling, tolerance, stage="shop", kind="work")
    seen(path, queued, tolerance, stage="shipping", kind="wait")
    seen(path, shipping, tolerance, stage="shipping", kind="work")
    seen(path, server.query(f'sum(flow_latency_seconds_sum{{flow="{flow}"}})'), 1e-6)


def expect_seen(server, family, expected, tolerance, **labels):
    """Prometheus will say so: it scrapes once a second, and new series show 0 for a while."""
    selector = ",".join(f'{name}="{value}"' for name, value in labels.items())
    query = f"sum({family}{{{selector}}})"

    def seen():
        expect_close(server.query(query), expected, tolerance, query)
        return True

    eventually(seen, True, query, alive=server)


def expect_all_accounted_for(scrape):
    expect_equal(scrape.unaccounted(), 0, "events that are counted nowhere or twice")
    for family in ("late_events_total", "events_duplicate_total", "unanswered_producers_total"):
        expect_equal(scrape.total(f"latency_aggregator_{family}"), 0, family)


def place_orders(broker, running):
    """The shop answers its requests, has exported all of its spans, and is gone."""
    shop = Service("shop", exporter(running))
    with broker.connect() as connection:
        channel = instrumented_channel(connection, shop)
        channel.queue_declare(QUEUE, durable=True)
        channel.confirm_delivery()
        orders = [place_order(shop, channel, number) for number in range(len(REQUESTS))]
    shop.shut_down()
    return orders


def place_order(shop, channel, number):
    flow, request = REQUESTS[number]
    placed = time.monotonic()
    with shop.tracer.start_as_current_span(request, kind=SpanKind.SERVER):
        time.sleep(SECONDS_OF_WORK)
        channel.basic_publish("", QUEUE, str(number).encode())
        return Order(flow, placed, sent=time.monotonic())


def ship_one_by_one(broker, running, orders):
    """Each message is worked on in the CONSUMER span that the instrumentation makes for it."""
    shipping = Service("shipping", exporter(running))

    def ship(_channel, _method, _properties, body):
        order = orders[int(body)]
        order.taken = time.monotonic()
        time.sleep(SECONDS_OF_WORK)
        order.shipped = time.monotonic()

    with broker.connect() as connection:
        channel = instrumented_channel(connection, shipping)
        channel.basic_consume(QUEUE, ship, auto_ack=True)

        def number_of_shipped():
            connection.process_data_events(time_limit=0.1)
            return sum(order.shipped > 0 for order in orders)

        eventually(number_of_shipped, len(orders), "orders that were shipped", alive=broker)
    shipping.shut_down()


def ship_together(broker, running, orders):
    """The messages are fetched, for which the instrumentation makes no spans, and worked on."""
    shipping = Service("shipping", exporter(running))
    with broker.connect() as connection:
        channel = connection.channel()
        messages = [channel.basic_get(QUEUE, auto_ack=True) for _ in orders]
    links = [Link(producer(properties)) for _method, properties, _body in messages]

    taken = time.monotonic()
    with shipping.tracer.start_as_current_span(
        "orders process", kind=SpanKind.CONSUMER, links=links
    ):
        time.sleep(SECONDS_OF_WORK)
    for order in orders:
        order.taken, order.shipped = taken, time.monotonic()
    shipping.shut_down()


def producer(properties):
    """The span that sent a message, as the message's headers name it."""
    return get_current_span(propagate.extract(properties.headers)).get_span_context()


def instrumented_channel(connection, service):
    channel = connection.channel()
    PikaInstrumentor.instrument_channel(channel, tracer_provider=service.provider)
    return channel


def exporter(running):
    return OTLPSpanExporter(endpoint=running.otlp_grpc, insecure=True)
