"""Pushes that made the ancestor panic, or that would break a careless /metrics."""

# The value of a label that must come out of /metrics as it went in.
AWKWARD_VALUE = 'quote " backslash \\ newline \n end'

# Names that collide with the series of the histogram `order` or of the product itself.
OVERLAPPING_NAMES = [
    "order_bucket",
    "order_sum",
    "order_count",
    "order_total",
    "order_created",
    "flow_latency_seconds",
    "flow_latency_seconds_bucket",
    "flow_anything",
    "latency_aggregator_events_received_total",
    "process_cpu_seconds_total",
]

INVALID_NAMES = ["", "1st", "with space", "with-dash", 'a{b="c"}', "a\nb", None, 1, [], {}]

CHANGES = [
    # Different label names and buckets for one metric.
    {"label_values": {"tenant": "blue"}},
    {"label_values": {"region": "north"}},
    {"label_values": {"tenant": "blue", "region": "north", "zone": "a"}},
    {"const_labels": {"tenant": "red"}},
    {"buckets": [1, 2, 3]},
    {"buckets": [0.1, 0.2]},
    {"buckets": [3, 2, 1, 1]},
    {"buckets": [-1, 0, 1e308]},
    {"buckets": []},
    {"buckets": list(range(10_000))},
    # Text that the format must escape, or that looks like more lines of it.
    {"help": 'two\nlines with a \\ and a " in them'},
    {"help": "another help text"},
    {"label_values": {"tenant": AWKWARD_VALUE}},
    {"label_values": {"tenant": "carriage return \r, NUL \0, separator \u2028, \U0001f980"}},
    {"label_values": {"tenant": "} 1\nup 1\n# TYPE up counter"}},
    {"label_values": {"tenant": "x" * 5_000}},
    {"stage": 'stage " \\ \n'},
    # Label names that are reserved or invalid.
    {"label_values": {"le": "1"}},
    {"label_values": {"outcome": "ok", "flow": "other", "stage": "s"}},
    {"label_values": {"__name__": "up"}},
    {"label_values": {"": "empty"}},
    {"label_values": {"not a name": "x", "1st": "x"}},
    # Values out of range or of the wrong type.
    {"life_span": -1},
    {"life_span": 1e300},
    {"life_span": "soon"},
    {"created_at": "0001-01-01T00:00:00Z"},
    {"created_at": "9999-12-31T23:59:59Z"},
    {"created_at": "yesterday"},
    {"status": "error"},
    {"status": 1},
    {"id": ""},
    {"id": "x" * 10_000},
    *({"name": name} for name in OVERLAPPING_NAMES + INVALID_NAMES),
]

PLAIN = {"name": "order", "stage": "placed", "life_span": 0, "time_to_live": 1}

PUSHES = [
    *({"id": f"hostile-{number}", **PLAIN, **change} for number, change in enumerate(CHANGES)),
    [{}, None, 7, "x", []],
    None,
    "text",
]
