"""Starting and ending: what an init system and a person at a terminal see."""

import json
import re
import socket

from lib import (
    REPOSITORY,
    SHORT_TIMERS,
    Process,
    aggregator,
    announced_ports,
    eventually,
    expect,
    expect_equal,
    get,
    run,
    tool,
)


def check_the_example_config_is_valid():
    code, output = run([tool("AGGREGATOR_BINARY"), "check", REPOSITORY / "config.yaml"])
    expect_equal(code, 0, f"exit code of check config.yaml, which said:\n{output}")


def check_sigterm_closes_what_ended_and_waits_for_one_more_scrape():
    # The flows' own timers are longer than the check, so that only the signal closes them.
    config = {
        "defaults": {"quiet_period": "60s", "linger": "60s"},
        "shutdown": {"linger": "30s"},
    }
    with aggregator(**config) as running:
        running.push({"id": "ended", "name": "order", "stage": "shipped", "final": True})
        running.push({"id": "open", "name": "order", "stage": "placed"})
        expect_equal(running.scrape().total("flow_open", flow="order"), 2, "open flows")

        running.terminate()
        last = last_scrape(running)
        expect_equal(closed(last, outcome="ok"), 1, "flows that had ended")
        expect_equal(closed(last, outcome="evicted", reason="shutdown"), 1, "flows that were open")
        # Well before the 30 s, for they are only for scrapes that do not come.
        expect_equal(running.wait(timeout=10), 0, "exit code after SIGTERM")


def check_sigterm_makes_it_unready_and_ends_without_a_scrape_too():
    with aggregator(shutdown={"linger": "2s"}) as running:
        running.terminate()
        eventually(lambda: get(running.http + "/readyz")[0], 503, "readyz", alive=running)
        expect_equal(running.wait(timeout=10), 0, "exit code after SIGTERM and no scrape")


def last_scrape(running):
    """What the last scrape showed that a program which is about to end still answered."""
    answers = []

    def ended():
        if running.exit_code() is None:
            answers.append(running.scrape())
        return running.exit_code() is not None

    eventually(ended, True, "the end after a scrape", timeout=20)
    expect(answers, "no scrape was answered after SIGTERM")
    return answers[-1]


def check_a_taken_port_is_one_message_that_names_the_setting():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for setting in ("http", "metrics", "otlp_grpc", "otlp_http"):
            config = {**SHORT_TIMERS, "listen": {**SHORT_TIMERS["listen"], setting: address}}
            with Process(
                "aggregator",
                [tool("AGGREGATOR_BINARY"), "--config", "config.yaml"],
                files={"config.yaml": json.dumps(config)},
            ) as running:
                code = running.wait(timeout=10)
                expect(code != 0, f"it started although listen.{setting} {address} was taken")
                expect(
                    f"listen.{setting}" in running.output() and address in running.output(),
                    f"the message does not name listen.{setting} and {address}: {running.output()}",
                )


def check_a_mistake_in_the_config_is_refused_with_its_place():
    config = "listen: {http: 127.0.0.1:0}\ndefaults:\n  quiet_perod: 10s\n"
    output = expect_refused(["--config", "config.yaml"], config)
    expect(
        re.search(r"config\.yaml\D+3\D+\d", output) and "quiet_perod" in output,
        f"the message does not name file, line, column and key: {output}",
    )
    expect_refused(["check", "config.yaml"], config)
    expect_refused(["--config", "missing.yaml"], config)
    expect_refused(["--no-such-flag"], config)


def expect_refused(arguments, config):
    """It ends by itself with a failure and has announced no address; returns what it said."""
    command = [tool("AGGREGATOR_BINARY"), *arguments]
    with Process("aggregator", command, files={"config.yaml": config}) as running:
        code = running.wait(timeout=10)
        output = running.output()
        expect(code != 0, f"exit code of {' '.join(arguments)} is 0, it said: {output}")
        expect_equal(announced_ports(output), {}, f"addresses announced by {' '.join(arguments)}")
        return output


def closed(scrape, **labels):
    return scrape.total("flow_closed_total", **labels)
