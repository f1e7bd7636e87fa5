"""The limit: ONNX Runtime in a process without a server, its session run again and again on rows that are there.

``raw_onnxruntime.py MODEL INPUTS.npz SECONDS ROWS,THREADS,RUNS …``: INPUTS.npz holds one row; ROWS is how many of it make a
batch, THREADS what one run may use, RUNS how many go on at a time. Prints a JSON list with an object for each such way, each
measured for SECONDS: rows a second, and the median of a run in microseconds.
"""

import json
import sys
import threading
import time

import numpy as np
import onnxruntime


def measure(session, names, feed, seconds: float, runs: int) -> list[list[float]]:
    """Return how long each run took, by thread."""
    took: list[list[float]] = [[] for _ in range(runs)]
    session.run(names, feed)
    end = time.perf_counter() + seconds

    def work(mine: list[float]) -> None:
        began = time.perf_counter()
        while began < end or not mine:
            session.run(names, feed)
            now = time.perf_counter()
            mine.append(now - began)
            began = now

    workers = [threading.Thread(target=work, args=(mine,)) for mine in took]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return took


def main(path: str, inputs: str, seconds: str, *ways: str) -> None:
    """Measure each way and print what came of it."""
    with np.load(inputs) as loaded:
        one = dict(loaded)
    results, sessions = [], {}
    for way in ways:
        rows, threads, runs = map(int, way.split(","))
        if threads not in sessions:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
            options.log_severity_level = 3
            sessions[threads] = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
        session = sessions[threads]
        feed = {name: np.repeat(array, rows, axis=0) for name, array in one.items()}
        took = measure(session, [output.name for output in session.get_outputs()], feed, float(seconds), runs)
        rate = sum(rows * len(mine) / sum(mine) for mine in took)
        results.append({"rate": rate, "p50": 1e6 * float(np.median(np.concatenate(took)))})
    print(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
