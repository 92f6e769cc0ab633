"""A real RabbitMQ on free ports, with everything that it writes in a directory of its own."""

import socket
from contextlib import contextmanager

import pika

from lib import Process, eventually, free_port, tool


@contextmanager
def rabbitmq():
    """A broker that takes connections."""
    with port_mapper() as port, RabbitMq(port) as broker:
        eventually(
            lambda: "Server startup complete" in broker.output(),
            True,
            "ready RabbitMQ",
            timeout=90,
            alive=broker,
        )
        yield broker


@contextmanager
def port_mapper():
    """Erlang's epmd, which RabbitMQ needs. One that is started elsewhere would outlive it."""
    port = free_port()
    command = [tool("EPMD"), "-port", port, "-address", "127.0.0.1"]
    with Process("epmd", command) as running:
        eventually(lambda: answers(port), True, "ready epmd", alive=running)
        yield port


def answers(port):
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True


class RabbitMq(Process):
    def __init__(self, port_of_epmd):
        self._port = free_port()
        super().__init__(
            "rabbitmq",
            [tool("RABBITMQ")],
            files={"rabbitmq.conf": f"listeners.tcp.local = 127.0.0.1:{self._port}\n"},
            environment={
                # Relative to the directory of the process. The home is for Erlang's cookie.
                "HOME": ".",
                "RABBITMQ_CONFIG_FILE": "rabbitmq.conf",
                "RABBITMQ_CONF_ENV_FILE": "none",
                "RABBITMQ_ENABLED_PLUGINS_FILE": "none",
                "RABBITMQ_MNESIA_BASE": "mnesia",
                "RABBITMQ_LOG_BASE": ".",
                "RABBITMQ_LOGS": "-",
                "RABBITMQ_NODENAME": "blackbox@localhost",
                "RABBITMQ_DIST_PORT": str(free_port()),
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                    "-kernel inet_dist_use_interface {127,0,0,1}"
                ),
                "ERL_EPMD_PORT": str(port_of_epmd),
                # The script that starts it is replaced by it, so that signals reach it.
                "RUNNING_UNDER_SYSTEMD": "true",
            },
        )

    def connect(self):
        """A connection, to be used in a `with` statement."""
        return pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", self._port))
