"""The two ends of a connection that is tested in memory."""

import asyncio


class Wire(asyncio.Transport):
    """The kernel's end."""

    def __init__(self):
        super().__init__()
        self.written = b""
        self.ended = False

    def write(self, data):
        self.written += data

    def close(self):
        self.ended = True

    abort = close


class Told:
    """What the owner hears."""

    def __init__(self):
        self.answers = []
        self.losses = []

    def answered(self, connection, answer):
        self.answers.append((answer.failure, answer.body, answer.reusable))

    def lost(self, connection, words):
        self.losses.append(words)
