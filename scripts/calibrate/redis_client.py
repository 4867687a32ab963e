# SPDX-License-Identifier: Apache-2.0
"""The least of a Redis client: RESP2 over a unix socket, pipelines, and INFO as a mapping.

Source: the Redis serialization protocol specification (RESP2). Leaves out: null arrays inside replies to transactions, RESP3, TLS.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Word = bytes | str | int
PIPELINE = 500  # commands sent before their replies are read: little enough to fit in the sockets' buffers


class ErrorReply(Exception):
    """What the server answered with `-…`."""


def command(*words: Word) -> bytes:
    """One command as the protocol wants it."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        raw = word if isinstance(word, bytes) else str(word).encode()
        parts.append(b"$%d\r\n%s\r\n" % (len(raw), raw))
    return b"".join(parts)


class Client:
    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(120)
        try:
            self.socket.connect(str(path))
        except OSError:
            self.socket.close()
            raise
        self.replies = self.socket.makefile("rb")

    def close(self) -> None:
        self.replies.close()
        self.socket.close()

    def reply(self) -> Any:
        """The next reply: bytes, int, None or a list; an error reply is returned, not raised, so that a pipeline stays in step."""
        line = self.replies.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the server closed the connection in the middle of a reply")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest
        if kind == b"-":
            return ErrorReply(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self.replies.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        raise ConnectionError(f"a reply cannot start with {kind!r}")

    def ask(self, *words: Word) -> Any:
        self.socket.sendall(command(*words))
        answer = self.reply()
        if isinstance(answer, ErrorReply):
            raise answer
        return answer

    def batch(self, commands: Sequence[bytes]) -> list[Any]:
        self.socket.sendall(b"".join(commands))
        return [self.reply() for _ in commands]

    def pipeline(self, commands: Iterable[bytes]) -> None:
        """Sends all, a few hundred at a time; the first error is raised."""
        waiting: list[bytes] = []
        for one in commands:
            waiting.append(one)
            if len(waiting) == PIPELINE:
                self.checked(waiting)
                waiting = []
        if waiting:
            self.checked(waiting)

    def checked(self, commands: Sequence[bytes]) -> None:
        for answer in self.batch(commands):
            if isinstance(answer, ErrorReply):
                raise answer

    def info(self, section: str = "everything") -> dict[str, str]:
        return parse_info(self.ask("INFO", section).decode())


def parse_info(text: str) -> dict[str, str]:
    """INFO's `name:value` lines; headings and empty lines are left out."""
    pairs = (line.partition(":") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: value.strip() for name, colon, value in pairs if colon}
