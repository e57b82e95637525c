"""A proxy that can forget its connections, as a load balancer does, or make a server slow."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from random import Random


class Damage:
    """Loses some bytes of a connection, or all that follow in one direction, by a random seed."""

    MOST = 8  # bytes lost at once

    def __init__(self, seed: int, share: float) -> None:
        self._random, self._share = Random(seed), share
        self.done = 0

    def on(self, data: bytes) -> tuple[bytes, bool]:
        """The bytes that are left, and whether more may follow."""
        if self._random.random() >= self._share:
            return data, True
        self.done += 1
        at = self._random.randrange(len(data))
        if self._random.random() < 0.25:
            return data[:at], False
        return data[:at] + data[at + self._random.randint(1, self.MOST) :], True


class Proxy:
    """Forwards connections to a server, in threads, so that it goes on while a test blocks."""

    def __init__(self, target: int, host: str = "127.0.0.1") -> None:
        self._target = (host, target)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._forgotten: list[threading.Event] = []
        self._flows = self._new_gate()
        self.damage: Damage | None = None
        self.delay = 0.0  # seconds for each part of a connection
        self._open: dict[int, tuple[socket.socket, socket.socket]] = {}
        _start(self._accept)

    @property
    def clients(self) -> list[int]:
        """The clients' ports of the open connections."""
        return list(self._open)

    def forget(self) -> None:
        """Hold back all bytes of open connections, even their end. New connections work."""
        self._flows.clear()
        self._forgotten.append(self._flows)
        self._flows = self._new_gate()

    def fall_silent(self) -> None:
        """Close the open connections. New ones are accepted, but no bytes pass."""
        self._flows.clear()
        self._forgotten.append(self._flows)
        self._end_all()

    def remember(self) -> None:
        """Let all bytes that were held back pass, in their order."""
        for gate in self._forgotten:
            gate.set()
        self._forgotten.clear()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._end_all()
        self.remember()

    def _end_all(self) -> None:
        for pair in list(self._open.values()):
            for end in pair:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _new_gate() -> threading.Event:
        gate = threading.Event()
        gate.set()
        return gate

    def _accept(self) -> None:
        with suppress(OSError):  # it is raised once the listener is closed
            while True:
                client, (_, port) = self._listener.accept()
                _start(self._serve, client, port, self._flows)

    def _serve(self, client: socket.socket, port: int, gate: threading.Event) -> None:
        with client, suppress(OSError), socket.create_connection(self._target) as server:
            self._open[port] = (client, server)
            back = _start(self._forward, server, client, gate)
            self._forward(client, server, gate)
            back.join()
        self._open.pop(port, None)

    def _forward(self, source: socket.socket, sink: socket.socket, gate: threading.Event) -> None:
        sink.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        more = True
        with suppress(OSError):
            while more and (data := source.recv(65536)):
                if self.damage:
                    data, more = self.damage.on(data)
                time.sleep(self.delay)
                gate.wait()
                sink.sendall(data)
        gate.wait()
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


def _start(target: Callable[..., None], *args: object) -> threading.Thread:
    thread = threading.Thread(target=target, args=args, daemon=True)
    thread.start()
    return thread
