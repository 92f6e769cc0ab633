"""promtool finds nothing wrong with /metrics, whatever was pushed, nor with the examples."""

import json
import shutil
import tempfile
from pathlib import Path

import hostile
from lib import (
    EXAMPLES,
    Scrape,
    aggregator,
    eventually,
    expect,
    expect_equal,
    get,
    printed,
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


def check_the_rules_in_the_examples_fire_when_they_should():
    promtool("check", "rules", EXAMPLES / "rules.yml")
    promtool("test", "rules", EXAMPLES / "rules_test.yml")


def check_the_rules_of_a_config_fire_when_they_should():
    slo = {"latency": "5s", "objective": 99}
    # The flows of rules_test.yml, and one that has to be escaped for each language it comes through.
    awkward = 're"fund|\\.*${é}\u2028'
    flows = [{"name": name, "slo": slo} for name in ("checkout", awkward, "refund")]
    with tempfile.TemporaryDirectory() as directory:
        rules, test = Path(directory) / "rules.yml", Path(directory) / "rules_test.yml"
        rules.write_text(printed("rules", {"flows": flows}))
        promtool("check", "rules", rules)
        shutil.copy(EXAMPLES / "rules_test.yml", test)
        promtool("test", "rules", test)
        test.write_text(json.dumps(burning_flows([awkward, "refund", "not configured"], burns=2)))
        promtool("test", "rules", test)
        rules.write_text(printed("rules", {"flows": [{"name": "without_slo"}]}))
        promtool("check", "rules", rules)


def burning_flows(names, burns):
    """A unit test in which all these flows are bad, and so many are looked at."""
    series = []
    for name in names:
        labels = f'job="a", instance="1", flow={json.dumps(name)}'
        bad = f'flow_slo_total{{{labels}, result="bad"}}'
        series.append({"series": bad, "values": "0+1x10"})
        series.append({"series": f"flow_slo_objective_ratio{{{labels}}}", "values": "0.99x10"})
    expected = {
        "expr": "count(job_flow:flow_slo_burn:rate5m)",
        "eval_time": "5m",
        "exp_samples": [{"labels": "{}", "value": burns}],
    }
    test = {"interval": "1m", "input_series": series, "promql_expr_test": [expected]}
    return {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": [test]}


def promtool(*arguments):
    code, output = run([tool("PROMTOOL"), *arguments])
    expect_equal(code, 0, f"exit code of promtool {' '.join(map(str, arguments))}, it said:\n{output}")


def expect_clean(running):
    status, text = get(running.metrics_url)
    expect_equal(status, 200, "status of /metrics")
    Scrape(text)
    code, complaints = run([tool("PROMTOOL"), "check", "metrics"], stdin=text)
    expect_equal((code, complaints), (0, ""), "exit code and output of promtool check metrics")
