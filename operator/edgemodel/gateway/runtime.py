"""HAProxy's runtime API: one command a connection, over a Unix socket (Management Guide 2.6, section 9.3).

Promises: every command ends in bounded time; an answer that means failure is an error, whatever HAProxy's way of saying so.
"""

import asyncio

from edgemodel.errors import Transient

SECONDS = 5.0
MAX_BYTES = 8 << 20
_FINE = ("", "New server registered.", "Server deleted.", "done")
"""What HAProxy says to a command that worked; most say nothing."""


class CommandRefused(Transient):
    """HAProxy did not do it."""

    def __init__(self, command: str, answer: str) -> None:
        super().__init__("GatewayFailed", f"HAProxy to {command.partition(' check ')[0]!r}: {answer[:300]}")
        self.answer = answer


async def ask(socket: str, command: str) -> str:
    """Return HAProxy's answer to one command, without the empty lines around it.

    Raises:
        CommandRefused: it could not be asked.
    """
    try:
        async with asyncio.timeout(SECONDS):
            reader, writer = await asyncio.open_unix_connection(socket, limit=MAX_BYTES)
            try:
                writer.write(f"{command}\n".encode())
                writer.write_eof()  # or the master process would wait for more
                answer = await reader.read(MAX_BYTES)
                while more := await reader.read(MAX_BYTES):
                    answer += more
                    if len(answer) > MAX_BYTES:
                        raise CommandRefused(command, f"an answer of more than {MAX_BYTES} bytes")
            finally:
                writer.close()
    except (OSError, TimeoutError) as error:
        raise CommandRefused(command, f"no answer ({type(error).__name__}: {error})") from None
    return answer.decode("utf-8", "replace").strip()


async def order(socket: str, command: str) -> None:
    """Have HAProxy do something.

    Raises:
        CommandRefused: it did not.
    """
    answer = await ask(socket, command)
    # "set weight" of a server that is in maintenance, and the like, answer with a sentence.
    if answer not in _FINE:
        raise CommandRefused(command, answer)


async def process_id(socket: str) -> int | None:
    """Return the process id of the worker that answers; None when none does."""
    try:
        answer = await ask(socket, "show info")
    except CommandRefused:
        return None
    for line in answer.splitlines():
        name, _, value = line.partition(":")
        if name == "Pid" and value.strip().isdecimal():
            return int(value)
    return None
