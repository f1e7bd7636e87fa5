# ruff: noqa: ARG001, D103, PLW0603, RUF006, T201
# /// script
# requires-python = ">=3.11"
# dependencies = ["granian==2.8.7", "uvicorn==0.54.0", "httptools", "uvloop", "onnxruntime", "numpy", "orjson", "onnx"]
# ///
"""The measurement of ADR 7: one handler behind five HTTP servers; prints memory and CPU time per request.

`python docs/adr/0007_http_servers.py` with the packages above and wrk installed. The server is pinned to CPU 0, the
client to CPU 1. CPU time is compared, not throughput: it does not depend on what else the machine does.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PORT = 18200
SERVERS = ("granian", "granian-embedded", "uvicorn", "httptools", "httptools-uvloop")
SECONDS = 4


def make_handler():
    import numpy as np
    import onnxruntime
    import orjson

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(os.environ["MODEL"], options)
    pool = ThreadPoolExecutor(1)

    async def handle(body):
        if not body:
            return b"{}"
        tensor = orjson.loads(body)["inputs"][0]
        x = np.array(tensor["data"], np.float32).reshape(tensor["shape"])
        (y,) = await asyncio.get_running_loop().run_in_executor(pool, session.run, None, {"x": x})
        output = {"name": "y", "datatype": "FP32", "shape": y.shape, "data": y.ravel()}
        return orjson.dumps({"model_name": "m", "outputs": [output]}, option=orjson.OPT_SERIALIZE_NUMPY)

    return handle


async def rsgi(scope, protocol):
    global handle
    handle = handle or make_handler()
    protocol.response_bytes(200, [("content-type", "application/json")], await handle(await protocol()))


handle = None


async def asgi(scope, receive, send):
    global handle
    handle = handle or make_handler()
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body")
    answer = await handle(body)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


async def bare():
    import httptools

    handle = make_handler()
    loop = asyncio.get_running_loop()

    class Connection(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport, self.parser, self.body = transport, httptools.HttpRequestParser(self), b""

        def data_received(self, data):
            self.parser.feed_data(data)

        def on_body(self, body):
            self.body += body

        def on_message_complete(self):
            loop.create_task(self.answer(self.body))
            self.body = b""

        async def answer(self, body):
            answer = await handle(body)
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
            self.transport.write(head % len(answer) + answer)

    server = await loop.create_server(Connection, "127.0.0.1", PORT)
    await server.serve_forever()


def serve(name):
    if name == "granian":
        from granian.server import Server

        target = f"{Path(__file__).stem}:rsgi"
        Server(target, port=PORT, interface="rsgi", websockets=False, log_enabled=False).serve()
    elif name == "granian-embedded":
        import uvloop
        from granian.server.embed import Server

        uvloop.run(Server(rsgi, port=PORT, interface="rsgi", websockets=False, log_enabled=False).serve())
    elif name == "uvicorn":
        import uvicorn

        uvicorn.run(
            asgi,
            port=PORT,
            http="httptools",
            loop="uvloop",
            lifespan="off",
            access_log=False,
            log_level="error",
        )
    elif name == "httptools":
        asyncio.run(bare())
    else:
        import uvloop

        uvloop.run(bare())


def family(pid):
    pids = [pid]
    for parent in pids:
        pids += map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split())
    return pids


def cpu_seconds(pid):
    ticks = 0
    for one in family(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def resident_mb(pid):
    return sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) * 4096 for one in family(pid)) / 1e6


def measure(name, script):
    server = subprocess.Popen(
        ["taskset", "-c", "0", sys.executable, __file__, name], cwd=Path(__file__).parent
    )
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{PORT}/", timeout=2).close()
                break
            except OSError:
                assert time.monotonic() < deadline, "the server did not come up"
                time.sleep(0.02)
        row = [f"{name:18}"]
        for connections in (1, 16):
            before = cpu_seconds(server.pid)
            command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", "-s", script]
            report = subprocess.run(
                [*command, f"http://127.0.0.1:{PORT}/"], capture_output=True, text=True, check=True
            ).stdout
            requests = int(report.split(" requests in")[0].split()[-1])
            row.append(f"{(cpu_seconds(server.pid) - before) / requests * 1e6:4.0f} µs at {connections:2}")
        row.append(f"{resident_mb(server.pid):5.1f} MB in {len(family(server.pid))} process(es)")
        print(" | ".join(row), flush=True)
    finally:
        server.terminate()
        server.wait()


def main():
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = [
        numpy_helper.from_array(np.ones(s, np.float32), n) for n, s in (("a", (64, 128)), ("b", (128, 10)))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", s]) for n, s in (("x", 64), ("y", 10))]
    graph = helper.make_graph(nodes, "mlp", ends[:1], ends[1:], weights)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MODEL"] = f"{folder}/m.onnx"
        opsets = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), os.environ["MODEL"])
        values = ",".join(f"{i / 7:.6f}" for i in range(64))
        body = f'{{"inputs":[{{"name":"x","shape":[1,64],"datatype":"FP32","data":[{values}]}}]}}'
        script = Path(folder, "post.lua")
        script.write_text(f"wrk.method = 'POST'\nwrk.body = '{body}'\n")
        for _ in range(3):
            for name in SERVERS:
                measure(name, str(script))


if __name__ == "__main__":
    serve(sys.argv[1]) if len(sys.argv) > 1 else main()
