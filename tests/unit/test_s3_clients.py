"""What a client of S3 does on the wire, seen by a server that breaks off."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from botocore.exceptions import BotoCoreError

from promptmill.blobs import s3_clients

SECONDS = 20.0  # three tries with their pauses


class Breaking:
    """Reads the head of each request, asks for the body where the client waits to be asked,
    and closes."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                head = b""
                while b"\r\n\r\n" not in head and (more := connection.recv(65536)):
                    head += more
                self.heads.append(head)
                if b"expect: 100-continue" in head.lower():
                    connection.sendall(b"HTTP/1.1 100 Continue\r\n")

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch) -> Iterator[Breaking]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "something")
    server = Breaking()
    yield server
    server.close()


def test_a_put_ends_where_the_server_breaks_off(breaking: Breaking) -> None:
    client = s3_clients.connect(breaking.url)
    raised: list[BaseException] = []

    def put() -> None:
        try:
            client.put_object(Bucket="pictures", Key="a.png", Body=b"picture", IfNoneMatch="*")
        except BotoCoreError as error:
            raised.append(error)

    thread = threading.Thread(target=put, daemon=True)
    thread.start()
    thread.join(SECONDS)
    assert not thread.is_alive(), "the put still waits"
    assert len(raised) == 1
    assert breaking.heads
    assert not any(b"expect:" in head.lower() for head in breaking.heads)
