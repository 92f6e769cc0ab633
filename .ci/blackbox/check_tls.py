"""TLS, certificates of clients and tokens, as SDKs, curl and Prometheus use them.

The certificates are made by openssl, which shares no code with the product.
"""

import json
import os
import ssl
import tempfile
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (
    OTLPSpanExporter as GrpcExporter,
)
from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
    OTLPSpanExporter as HttpExporter,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult

from lib import Aggregator, eventually, expect, expect_equal, get, run, tool
from prometheus import Prometheus, prometheus

SEND_TOKEN = "token-of-those-who-send"
READ_TOKEN = "token-of-those-who-read"

PUSH = {"id": "order-1", "name": "order", "stage": "placed", "final": True}


def check_sdks_export_over_tls_with_a_token():
    with authority() as ca, Guarded(ca) as running:
        for number, new_exporter in enumerate(exporters(running), 1):
            with settings(ca, SEND_TOKEN):
                expect_equal(export(new_exporter()), SpanExportResult.SUCCESS, "export")
            expect_equal(running.scrape().received(), number, "events received")
            with settings(ca, "token-of-nobody-at-all"):
                expect_equal(export(new_exporter()), SpanExportResult.FAILURE, "with a wrong token")
        expect_equal(running.scrape().received(), 2, "events received in the end")


def check_sdks_show_certificates():
    with authority() as ca, Guarded(ca, mutual=True) as running:
        for number, new_exporter in enumerate(exporters(running), 1):
            with settings(ca, SEND_TOKEN, certificate=ca / "client"):
                expect_equal(export(new_exporter()), SpanExportResult.SUCCESS, "export")
            expect_equal(running.scrape().received(), number, "events received")
            with settings(ca, SEND_TOKEN):
                expect_equal(export(new_exporter()), SpanExportResult.FAILURE, "without one")
        expect_equal(running.scrape().received(), 2, "events received in the end")


def check_curl_pushes_over_tls():
    with authority() as ca, authority() as stranger, Guarded(ca) as running:
        bearer = ["-H", f"Authorization: Bearer {SEND_TOKEN}"]
        for http in ["--http1.1", "--http2"]:
            status, reply = curl(running.http, "--cacert", ca / "ca.pem", http, *bearer)
            expect_equal((status, json.loads(reply)["status"]), ("200", "ok"), f"reply {reply}")
        status, reply = curl(running.http, "--cacert", ca / "ca.pem")
        expect_equal((status, json.loads(reply)["retryable"]), ("401", False), f"reply {reply}")
        status, _ = curl(running.http, "--cacert", stranger / "ca.pem", *bearer)
        expect_equal(status, "000", "status when another authority is trusted")
        status, _ = curl(running.http.replace("https", "http"), *bearer)
        expect_equal(status, "000", "status without TLS")


def check_prometheus_scrapes_over_tls():
    with authority() as ca, Guarded(ca, mutual=True) as running:
        (ca / "readers").write_text(READ_TOKEN)
        job = {
            "scheme": "https",
            "tls_config": {
                "ca_file": str(ca / "ca.pem"),
                "cert_file": str(ca / "client.pem"),
                "key_file": str(ca / "client.key"),
            },
            "authorization": {"credentials_file": str(ca / "readers")},
        }
        with prometheus(running, jobs=(job,)) as server:
            server.expect_every_scrape_worked()
        without_token = {key: job[key] for key in ["scheme", "tls_config"]}
        with Prometheus(running, jobs=(without_token,)) as server:
            eventually(lambda: server.query("max(up)"), 0, "a scrape without token", alive=server)


def check_a_renewed_certificate_is_taken():
    with authority() as ca, Guarded(ca) as running:
        before = served(running, ca)
        issue(ca, "server")
        for name in ["server.pem", "server.key"]:
            (running.directory / name).write_text((ca / name).read_text())
        expect(served_certificate(ca) != before, "openssl made the same certificate again")
        eventually(lambda: served(running, ca), served_certificate(ca), "the certificate")


class Guarded(Aggregator):
    """An aggregator that wants TLS and tokens of all, and certificates as well if `mutual`."""

    scheme = "https"

    def __init__(self, ca, mutual=False):
        tls = {"certificate": "server.pem", "key": "server.key"}
        config = {
            "tls": {**tls, "client_ca": "ca.pem"} if mutual else tls,
            "auth": {"ingest_token_file": "senders", "read_token_file": "readers"},
            "reload": {"interval": "100ms"},
        }
        names = ["server.pem", "server.key", "ca.pem"]
        files = {name: (ca / name).read_text() for name in names}
        self._context = ssl.create_default_context(cafile=ca / "ca.pem")
        if mutual:
            self._context.load_cert_chain(ca / "client.pem", ca / "client.key")
        tokens = {"senders": SEND_TOKEN, "readers": f"# of Prometheus\n{READ_TOKEN}\n"}
        super().__init__(config, files={**files, **tokens})

    def get(self, url):
        headers = {"Authorization": f"Bearer {READ_TOKEN}"}
        return get(url, headers=headers, context=self._context)


@contextmanager
def authority():
    """A directory with an authority, and certificates that it signed for a server and a client."""
    with tempfile.TemporaryDirectory(prefix="blackbox-ca-") as directory:
        ca = Path(directory)
        openssl(
            *["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"],
            *["-subj", "/CN=authority", "-days", "2"],
            *["-addext", "keyUsage=critical,keyCertSign"],
            *["-keyout", ca / "ca.key", "-out", ca / "ca.pem"],
        )
        issue(ca, "server")
        issue(ca, "client")
        yield ca


def issue(ca, name):
    """A new key of RSA, as many authorities hand them out, and its certificate for this machine."""
    (ca / "extensions").write_text(
        "subjectAltName = IP:127.0.0.1, DNS:localhost\nextendedKeyUsage = serverAuth, clientAuth\n"
    )
    openssl(
        *["req", "-newkey", "rsa:2048", "-noenc", "-subj", f"/CN={name}"],
        *["-keyout", ca / f"{name}.key", "-out", ca / f"{name}.csr"],
    )
    openssl(
        *["x509", "-req", "-in", ca / f"{name}.csr", "-days", "1", "-out", ca / f"{name}.pem"],
        *["-CA", ca / "ca.pem", "-CAkey", ca / "ca.key", "-extfile", ca / "extensions"],
    )


def openssl(*arguments):
    code, output = run([tool("OPENSSL"), *arguments])
    expect_equal(code, 0, f"exit code of openssl, which said:\n{output}")


def exporters(running):
    """Exporters as the README has them set up: by the variables of OpenTelemetry."""
    return [
        lambda: GrpcExporter(endpoint=f"https://{running.otlp_grpc}"),
        lambda: HttpExporter(endpoint=f"https://{running.otlp_http}/v1/traces"),
    ]


@contextmanager
def settings(ca, token, certificate=None):
    variables = {
        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(ca / "ca.pem"),
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{token}",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "5",
        # Where these name something, requests does not look at what the exporter says.
        "REQUESTS_CA_BUNDLE": "",
        "CURL_CA_BUNDLE": "",
    }
    if certificate:
        variables["OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"] = f"{certificate}.pem"
        variables["OTEL_EXPORTER_OTLP_CLIENT_KEY"] = f"{certificate}.key"
    with mock.patch.dict(os.environ, variables):
        yield


def export(exporter):
    span = TracerProvider(shutdown_on_exit=False).get_tracer("blackbox").start_span("POST /orders")
    span.end()
    try:
        return exporter.export([span])
    finally:
        exporter.shutdown()


def curl(url, *arguments):
    """Pushes; the status, 000 without an answer, and the reply."""
    command = ["curl", "--silent", "--show-error", "--write-out", "\n%{http_code}", *arguments]
    body = ["-H", "Content-Type: application/json", "-d", json.dumps(PUSH), f"{url}/"]
    _, output = run([*command, *body])
    reply, status = output.rsplit("\n", 1)
    return status, reply


def served(running, ca):
    """The certificate that a new connection is shown, as PEM."""
    host, port = running.otlp_http.split(":")
    return ssl.get_server_certificate((host, int(port)), ca_certs=ca / "ca.pem", timeout=10)


def served_certificate(ca):
    """The certificate that openssl made last, written the same way."""
    return ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert(certificate_of(ca)))


def certificate_of(ca):
    text = (ca / "server.pem").read_text()
    return text[text.index("-----BEGIN CERTIFICATE") :]
