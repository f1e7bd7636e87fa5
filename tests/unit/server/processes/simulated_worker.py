"""The other side of `Crew`: a further process without a model, with the faults that its job's settings name.

Each time it starts it counts itself on the board, so that a fault can be the first life's alone.
"""

import os
import signal
import socket
import sys
import time

from inference_server.processes.job import receive
from inference_server.processes.link import READY, STOP, STOPPED
from inference_server.telemetry.board import Board

control = socket.socket(fileno=int(sys.argv[1]))
job = receive(control)
board = Board(job.rows, job.row, job.board)
lives = board.cells("lives", (), 1)
lives[0] += 1
fault = job.settings.name if lives[0] == 1 else ""
if fault == "refuses":
    sys.exit(10)
listener = socket.socket(fileno=job.listener)
if fault != "idle":
    listener.listen()
    control.send(READY)
if fault == "dies":
    os.kill(os.getpid(), signal.SIGKILL)
board.beat(stuck=fault == "stuck")
stopped = control.recv(1)
if stopped == STOP:
    if fault == "lingers":
        time.sleep(600)
    control.send(STOPPED % 3)
