"""Peer: a server that receives each body into one buffer that it keeps, and answers. No parsing beyond the length.

What it does is the least that any server must: one copy out of the kernel. A thread for each connection.
"""

import contextlib
import socket
import sys
import threading

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
CHUNK = 1 << 20


def serve(connection: socket.socket) -> None:
    """Answer on one connection until its client goes."""
    with connection, contextlib.suppress(ConnectionResetError):
        receive(connection)


def receive(connection: socket.socket) -> None:
    """Receive bodies and answer each."""
    head = bytearray()
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    while True:
        while (end := head.find(b"\r\n\r\n")) < 0:
            received = connection.recv(4096)
            if not received:
                return
            head += received
        length = int(head[:end].lower().split(b"\r\ncontent-length:")[1].split(b"\r\n")[0])
        if len(buffer) < length:
            buffer = bytearray(length)
            view = memoryview(buffer)
        at = len(head) - end - 4
        view[:at] = head[end + 4 :]
        head.clear()
        while at < length:
            received_bytes = connection.recv_into(view[at:length])
            if not received_bytes:
                return
            at += received_bytes
        connection.sendall(ANSWER)


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=128) as listener:
        while True:
            accepted, _ = listener.accept()
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=serve, args=(accepted,), daemon=True).start()
