"""A small HTTP server of one thread, which no number of clients can exhaust.

It answers requests without a body, one per connection. A client has a few seconds for everything. If too many
connections are open, the oldest gives way, so that a scrape is answered although idle clients hold every connection. A
client that hangs up is not an error.
"""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus

_OPEN = 64  # connections that are open together
_WAITING = 256  # connections that the kernel holds until they are accepted
_HEAD_BYTES = 8_192  # longest head of a request
_SECONDS = 5.0  # time for a client to send its request and to take the answer


@dataclass(frozen=True)
class Response:
    """What the server answers: status, body and content type."""

    status: int
    body: bytes
    kind: str = "text/plain; charset=utf-8"


@contextmanager
def serving(answer: Callable[[str], Response], host: str, port: int) -> Iterator[int]:
    """Serve while the block runs.

    Args:
        answer: Function from the path of a request to its response; called in the server's thread.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.

    Yields:
        The port.

    Raises:
        OSError: The address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=_WAITING) as listener:
        server = _Server(answer)
        thread = threading.Thread(target=asyncio.run, args=(server.run(listener),), daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.stop()
            thread.join()


class _Server:
    def __init__(self, answer: Callable[[str], Response]) -> None:
        self._answer = answer
        self._open: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}  # the oldest first
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._stopped: asyncio.Event

    async def run(self, listener: socket.socket) -> None:
        """Serve until ``stop`` is called."""
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._accept, sock=listener, limit=_HEAD_BYTES, backlog=_WAITING)
        self._started.set()
        await self._stopped.wait()
        server.close()
        for writer in self._open:
            writer.transport.abort()
        await asyncio.gather(*self._open.values())

    def stop(self) -> None:
        """End ``run``, from another thread."""
        self._started.wait()
        self._loop.call_soon_threadsafe(self._stopped.set)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= _OPEN:
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.transport.abort()
        self._open[writer] = self._loop.create_task(self._serve(reader, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_SECONDS):
                writer.write(self._response(await reader.readuntil(b"\r\n\r\n")))
                writer.close()
                await writer.wait_closed()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # too slow, too long or gone; a timeout is an OSError
        finally:
            writer.transport.abort()
            self._open.pop(writer, None)

    def _response(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
        path, _, version = rest.partition(" ")
        if not version.startswith("HTTP/1."):
            response = Response(400, b"this is not a request\n")
        elif method not in ("GET", "HEAD"):
            response = Response(405, b"there is only GET\n")
        else:
            response = self._answer(path.partition("?")[0])
        lines = (
            f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}",
            f"Content-Type: {response.kind}",
            f"Content-Length: {len(response.body)}",
            "Connection: close",
        )
        return "\r\n".join((*lines, "\r\n")).encode() + (b"" if method == "HEAD" else response.body)
