"""The limit: ONNX Runtime in a process without a server, its session run again and again on rows that are there.

``raw_onnxruntime.py MODEL INPUTS.npz SECONDS ROWS,THREADS,RUNS,RATE …``: INPUTS.npz holds one row; ROWS is how many of it
make a batch, THREADS what one run may use, RUNS how many go on at a time. With a RATE above 0 so many runs a second begin
at even distances, one after the other, and each is measured from when it was due. Prints a JSON list with an object a way,
measured for SECONDS: rows a second, and the median and the 99th percentile of a run in microseconds.
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


def measure_paced(session, names, feed, seconds: float, rate: float) -> list[list[float]]:
    """Return how long each run took from when it was due."""
    took: list[float] = []
    session.run(names, feed)
    began = time.perf_counter()
    while (due := len(took) / rate) < seconds:
        time.sleep(max(0.0, began + due - time.perf_counter()))
        session.run(names, feed)
        took.append(time.perf_counter() - began - due)
    return [took]


def main(path: str, inputs: str, seconds: str, *ways: str) -> None:
    """Measure each way and print what came of it."""
    with np.load(inputs) as loaded:
        one = dict(loaded)
    results, sessions = [], {}
    for way in ways:
        *numbers, rate = way.split(",")
        rows, threads, runs = map(int, numbers)
        if threads not in sessions:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
            options.log_severity_level = 3
            sessions[threads] = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
        session = sessions[threads]
        feed = {name: np.repeat(array, rows, axis=0) for name, array in one.items()}
        names = [output.name for output in session.get_outputs()]
        if float(rate):
            took = measure_paced(session, names, feed, float(seconds), float(rate))
        else:
            took = measure(session, names, feed, float(seconds), runs)
        p50, p99 = (1e6 * float(one) for one in np.percentile(np.concatenate(took), (50, 99)))
        results.append({"rate": sum(rows * len(mine) / sum(mine) for mine in took), "p50": p50, "p99": p99})
    print(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
