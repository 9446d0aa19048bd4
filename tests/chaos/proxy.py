"""An S3 server (moto) behind a proxy that can fall silent, refuse connections and fail requests."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

REQUEST = (b"GET ", b"PUT ", b"HEAD ", b"POST ", b"DELETE ")
UNAVAILABLE = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
BLOCK = 2**16
LOOPBACK = "127.0.0.1"
START_SECONDS = 60


@contextmanager
def served(log: Path) -> Iterator[int]:
    """A moto server in a process of its own; its port."""
    with socket.socket() as free:
        free.bind((LOOPBACK, 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", LOOPBACK, "-p", str(port)]
    with log.open("wb") as file:
        server = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        for _ in range(START_SECONDS * 10):
            with socket.socket() as probe:
                if probe.connect_ex((LOOPBACK, port)) == 0:
                    break
            if server.poll() is not None:
                raise RuntimeError(f"moto did not start: {log.read_text()[-500:]}")
            time.sleep(0.1)
        yield port
    finally:
        server.kill()
        server.wait()


def reached_at(port: int) -> dict[str, str]:
    """The environment that leads s3fs, pyarrow and Ray to a server on this machine."""
    return {
        "AWS_ENDPOINT_URL": f"http://{LOOPBACK}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


class Proxy:
    """Hands connections on to a server; a context manager."""

    def __init__(self, target: int, seed: int = 0) -> None:
        """`target`: the server's port on this machine; `seed`: of the requests that fail."""
        self._target = target
        self._dice = random.Random(seed)
        self.failing = 0.0
        """Share of requests that are answered with 503."""
        self.sure = -1
        """Number of a request that fails in any case."""
        self.requests = self.answers = self.failed = 0
        self._flows = threading.Event()
        self._flows.set()
        self._over = False
        self._pairs: set[socket.socket] = set()
        self._listener = self._listen(0)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._flows.set()
        self._close_all()

    def silence(self) -> None:
        """Keep connections, answer nothing: a server that hangs."""
        self._flows.clear()

    def refuse(self) -> None:
        """Break off what is connected and refuse what comes: a server that is gone."""
        self._close_all()

    def serve(self) -> None:
        """As before the harm."""
        self._flows.set()
        if self._listener.fileno() < 0:
            self._listener = self._listen(self.port)
            threading.Thread(target=self._accept, daemon=True).start()

    def _listen(self, port: int) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((LOOPBACK, port))
        listener.listen(256)
        return listener

    def _close_all(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes who waits in accept
        self._listener.close()
        for each in [*self._pairs]:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        listener = self._listener
        while not self._over:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        server = socket.socket()
        self._pairs |= {client, server}
        try:
            self._flows.wait()
            server.connect((LOOPBACK, self._target))
            back = threading.Thread(target=self._answer, args=(server, client), daemon=True)
            back.start()
            self._ask(client, server)
            back.join()
        except OSError:
            pass  # either end has gone
        finally:
            self._pairs -= {client, server}
            for each in (client, server):
                each.close()

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        """Requests; clients wait for an answer before they send the next on a connection."""
        while block := client.recv(BLOCK):
            self._flows.wait()
            if block.startswith(REQUEST):
                self.requests += 1
                if self._dice.random() < self.failing or self.requests == self.sure:
                    self.failed += 1
                    client.sendall(UNAVAILABLE)
                    client.shutdown(socket.SHUT_WR)
                    while client.recv(BLOCK):  # closed unread, the answer would be lost
                        pass
                    break
            server.sendall(block)
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while block := server.recv(BLOCK):
                self._flows.wait()
                client.sendall(block)
                if block.startswith(b"HTTP/1.1 2"):
                    self.answers += 1
            client.shutdown(socket.SHUT_WR)
