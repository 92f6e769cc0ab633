"""HTTP/2 as clients that mean no good speak it: frame by frame, with prior knowledge, no TLS.

Nothing here keeps to the protocol by itself, nor to flow control.
"""

import socket
import struct
import threading

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    0,
    1,
    3,
    4,
    6,
    7,
    8,
    9,
)
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4

PROTOCOL_ERROR, CANCEL, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 0x1, 0x8, 0x9, 0xB


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def header_block(method, path, *more):
    """Without the dynamic table, so that every request may use the same one."""
    fields = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "x")]
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    return encoder.encode([*fields, *more], huffman=False)


def export_block(*more):
    return header_block(
        "POST", EXPORT, ("content-type", "application/grpc"), ("te", "trailers"), *more
    )


class Connection:
    """One connection; a thread reads and counts what comes, unless `reads` is False."""

    def __init__(self, port, reads=True, settings=b"", timeout=10.0):
        self._socket = socket.create_connection(("127.0.0.1", port), timeout)
        self._arrived = threading.Condition()
        self.frames = {}
        self.statuses = {}
        self.resets = {}
        self.goaway = None
        self.ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._socket.sendall(PREFACE + frame(SETTINGS, payload=settings))
        if reads:
            self._reader.start()
            # The server's windows hold from the acknowledgement of its settings on.
            self.wait(lambda: SETTINGS in self.frames)
            self.send(frame(SETTINGS, ACK))

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.close()

    def close(self):
        self._socket.close()

    def send(self, data):
        """False once the server has closed the connection, or takes nothing for `timeout`."""
        try:
            self._socket.sendall(data)
        except OSError:
            return False
        return not self.ended

    def is_answered(self, stream):
        """A reply of gRPC is whole with its status; of any other the headers are enough for us."""
        fields = self.statuses.get(stream, {})
        is_grpc = fields.get("content-type", "").startswith("application/grpc")
        answered = "grpc-status" in fields if is_grpc else ":status" in fields
        return answered or stream in self.resets or self.ended

    def refused(self):
        """How many requests were answered with 503."""
        return sum(fields.get(":status") == "503" for fields in self.statuses.values())

    def wait(self, arrived, timeout=15.0):
        """Waits until `arrived()` holds, looked at whenever something came."""
        with self._arrived:
            return self._arrived.wait_for(arrived, timeout)

    def _read(self):
        buffered = b""
        decoder = hpack.Decoder()
        while True:
            try:
                received = self._socket.recv(1 << 16)
            except TimeoutError:
                continue
            except OSError:
                received = b""
            with self._arrived:
                if not received:
                    self.ended = True
                    self._arrived.notify_all()
                    return
                buffered = self._take(buffered + received, decoder)
                self._arrived.notify_all()

    def _take(self, buffered, decoder):
        """Notes all whole frames and returns the rest."""
        place = 0
        while place + 9 <= len(buffered):
            length = int.from_bytes(buffered[place : place + 3], "big")
            if place + 9 + length > len(buffered):
                break
            kind, stream = (
                buffered[place + 3],
                int.from_bytes(buffered[place + 5 : place + 9], "big"),
            )
            self._note(kind, stream, buffered[place + 9 : place + 9 + length], decoder)
            place += 9 + length
        return buffered[place:]

    def _note(self, kind, stream, payload, decoder):
        self.frames[kind] = self.frames.get(kind, 0) + 1
        if kind == HEADERS:
            fields = dict(decoder.decode(payload, raw=False))
            self.statuses.setdefault(stream, {}).update(fields)
        elif kind == RST_STREAM:
            self.resets[stream] = int.from_bytes(payload, "big")
        elif kind == GOAWAY:
            self.goaway = int.from_bytes(payload[4:8], "big")


def request(port, block, body=b"", timeout=60.0):
    """One request on a connection of its own, within the server's flow-control windows.

    Returns its response's headers and trailers in one, or how it was reset.
    """
    with Connection(port) as connection:
        end = 0 if body else END_STREAM
        connection.send(frame(HEADERS, END_HEADERS | end, 1, block))
        parts = [body[at : at + 16384] for at in range(0, len(body), 16384)]
        for number, part in enumerate(parts, 1):
            connection.send(frame(DATA, END_STREAM if number == len(parts) else 0, 1, part))
        connection.wait(lambda: connection.is_answered(1), timeout)
        reply = dict(connection.statuses.get(1, {}))
        return reply or {"error": f"reset {connection.resets}, goaway {connection.goaway}"}
