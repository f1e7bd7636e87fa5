"""``edgemodel bench`` as a person or a script uses it."""

import json
import subprocess
import sys

import pytest

from edgemodel.cli import bench_figures, exit_codes
from edgemodel.loadtest.result import Closed, Open, Outcome
from tests.server.onnx_models import mlp, save
from tests.server.process import running
from tests.simulators.model_server import ModelServer, answer
from tests.unit.cli.conftest import same_as_golden

pytestmark = pytest.mark.timeout(20)
SHORT = ("--requests", 20, "--warm-up", 0)


def filled(load, latencies, **facts):
    outcome = Outcome(load, answered=len(latencies), seconds=2.0, **facts)
    for seconds in latencies:
        outcome.latency.add(seconds)
    return outcome


OUTCOMES = [
    filled(Closed(1), [0.001 * 1.05**number for number in range(100)]),
    filled(Open(100.0), [0.004] * 990 + [1.5] * 10, client_share=0.97),
    filled(Closed(4), []),
]
OUTCOMES[2].fail("HTTP 503", '{"error":"over\x1b[31mloaded"}')


def test_the_table_and_the_chart_are_plain_where_there_is_no_terminal(capsys, tmp_path):
    bench_figures.show(OUTCOMES, chart=True)
    printed = capsys.readouterr()
    same_as_golden("bench", printed.out, tmp_path)
    assert "rate 100/s: this client used 97% of a core" in printed.err


def test_a_chart_is_ascii_where_blocks_cannot_be_drawn(tmp_path):
    lines = list(bench_figures.bars(OUTCOMES[0], blocks=False))
    assert all(line.isascii() for line in lines)
    same_as_golden("bench_ascii", "\n".join([*lines, ""]), tmp_path)


def test_figures_for_programs_have_everything():
    document = bench_figures.document("m", 635, OUTCOMES, grpc=False, binary=True)
    closed, opened, nothing = document["loads"]
    assert (document["protocol"], document["tensorData"]) == ("http", "binary")
    assert document["requestBytes"] == 635
    assert (closed["loop"], closed["concurrency"], closed["throughput"]) == ("closed", 1, 50.0)
    assert (opened["loop"], opened["rate"], opened["arrivals"]) == ("open", 100.0, "even")
    assert opened["latencyMs"]["p99"] == pytest.approx(4, rel=0.01)
    assert opened["latencyMs"]["p99.9"] == opened["latencyMs"]["max"] == 1500
    assert sum(count for _, count in opened["histogramMs"]) == 1000
    assert nothing["errors"] == {"HTTP 503": 1}
    assert nothing["latencyMs"] == {"max": 0.0, "mean": 0.0}


async def test_one_document_with_a_part_for_each_load(run):
    async with ModelServer() as server:
        words = ("--concurrency", "1,2", "--rate", 500, *SHORT, "--output", "json")
        done = await run("bench", server.url, "--model", "m", *words)
    assert done.code == exit_codes.OK, done.err
    loads = json.loads(done.out)["loads"]
    assert [load.get("concurrency") or load["rate"] for load in loads] == [1, 2, 500]
    assert [load["answered"] for load in loads] == [20, 20, 20]


async def test_a_rate_alone_is_no_closed_loop(run):
    async with ModelServer() as server:
        done = await run("bench", server.url, "--model", "m", "--rate", 500, *SHORT)
    assert [line.split()[0] for line in done.out.splitlines()] == ["LOAD", "rate"]


async def test_a_token_comes_from_a_file_or_the_environment_and_is_not_shown(run, tmp_path, monkeypatch):
    (tmp_path / "token").write_text("from-file\n")
    monkeypatch.setenv("EDGEMODEL_TOKEN", "from-variable")
    async with ModelServer() as server:
        one = ("bench", server.url, "--model", "m", "--concurrency", 1, *SHORT)
        done = [await run(*one), await run(*one, "--token-file", tmp_path / "token")]
    assert "Bearer from-variable" in server.heads[0]
    assert "Bearer from-file" in server.heads[-1]
    assert not any("from-" in text for it in done for text in (it.out, it.err))


async def test_data_comes_from_a_file(run, tmp_path):
    request = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [[1, 2]]}]}
    (tmp_path / "request.json").write_text(json.dumps(request))
    async with ModelServer() as server:
        words = ("--data", tmp_path / "request.json", "--concurrency", 1, *SHORT)
        done = await run("bench", server.url, "--model", "m", *words)
        refused = await run("bench", server.url, "--model", "m", *words, "--shape", "x:1,4")
    assert done.code == exit_codes.OK
    assert {json.loads(body)["inputs"][0]["data"][0] for body in server.bodies} == {1}
    assert refused.code == exit_codes.STALLED
    assert "--shape is for values that are made up" in refused.err


async def test_not_one_answer_is_a_failure_that_may_pass(run):
    def reply(number):
        return answer() if number == 0 else answer(b"later", "503 Service Unavailable")

    async with ModelServer(reply) as server:
        done = await run("bench", server.url, "--model", "m", "--concurrency", 1, *SHORT)
    assert done.code == exit_codes.TRANSIENT
    assert "20 HTTP 503" in done.out
    assert "concurrency 1: HTTP 503: later" in done.out
    assert "not one request was answered" in done.err


async def test_also_then_there_is_one_document(run):
    async with ModelServer(lambda number: answer() if number == 0 else None) as server:
        words = ("--concurrency", 1, *SHORT, "--output", "json")
        done = await run("bench", server.url, "--model", "m", *words)
    assert done.code == exit_codes.TRANSIENT
    assert json.loads(done.out)["loads"][0]["errors"] == {"connection": 20}


async def test_a_plot_is_drawn(run, tmp_path):
    async with ModelServer() as server:
        words = ("--plot", tmp_path / "latency.png", "--concurrency", 1, *SHORT)
        done = await run("bench", server.url, "--model", "m", *words)
    assert done.code == exit_codes.OK, done.err
    assert (tmp_path / "latency.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "words"), [("a.gif", "ends in .png or .svg"), ("none/a.png", "there is no folder")]
)
async def test_a_plot_that_cannot_be_written_is_refused_before_the_load(run, tmp_path, name, words):
    async with ModelServer() as server:
        done = await run("bench", server.url, "--model", "m", "--plot", tmp_path / name)
    assert done.code == exit_codes.STALLED
    assert words in done.err
    assert server.heads == []


async def test_without_matplotlib_a_plot_says_what_to_install(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
    async with ModelServer() as server:
        done = await run("bench", server.url, "--model", "m", "--plot", tmp_path / "a.png")
    assert done.code == exit_codes.STALLED
    assert "install edgemodel[plots]" in done.err


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--concurrency", "0"),
        ("--concurrency", "1,x"),
        ("--concurrency", "901"),
        ("--rate", "0"),
        ("--rate", "nan"),
        ("--rate", "1e9"),
        ("--duration", "-1"),
        ("--duration", "nan"),
        ("--requests", "9" * 5000),
        ("--shape", "x"),
        ("--shape", "x:1,a"),
        ("--shape", "x:-1"),
    ],
)
async def test_a_number_that_is_none_is_refused(run, option, value):
    done = await run("bench", "http://127.0.0.1:1", "--model", "m", option, value)
    assert done.code == exit_codes.USAGE
    assert f"argument {option}: expected" in done.err


async def test_without_what_grpc_needs_it_says_what_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "hpack", None)
    for module in ("by_grpc", "grpc_connection"):
        monkeypatch.delitem(sys.modules, f"edgemodel.loadtest.{module}", raising=False)
    done = await run("bench", "grpc://127.0.0.1:1", "--model", "m")
    assert done.code == exit_codes.STALLED
    assert "gRPC needs hpack: install edgemodel[grpc]" in done.err


def measured_from_outside(url, *words):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "edgemodel", "bench", url, "--model", "m", "--requests", "50"),
            *("--warm-up", "0.1", "--output", "json", *map(str, words)),
        ],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == exit_codes.OK, done.stderr
    return json.loads(done.stdout)


@pytest.mark.process
@pytest.mark.timeout(60)
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_our_server_is_measured_from_outside(tmp_path, protocol):
    plot = tmp_path / "latency.png"
    with running(model=save(mlp(), tmp_path / "m.onnx")) as server:
        server.event("ready")
        document = measured_from_outside(
            f"{protocol}://127.0.0.1:{server.port}", "--concurrency", "1,4", "--rate", 50, "--plot", plot
        )
    assert document["protocol"] == protocol
    assert [load["loop"] for load in document["loads"]] == ["closed", "closed", "open"]
    for load in document["loads"]:
        assert load["answered"] >= 40
        assert load["errors"] == {}
        assert 0 < load["latencyMs"]["p50"] <= load["latencyMs"]["p99"] <= load["latencyMs"]["max"]
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.process
@pytest.mark.timeout(60)
@pytest.mark.parametrize(("protocol", "kind"), [("http", "HTTP 400"), ("grpc", "gRPC INVALID_ARGUMENT")])
def test_what_our_server_refuses_is_counted_by_its_status(tmp_path, protocol, kind):
    def request(size):
        return {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, size], "data": [0.5] * size}]}

    data = tmp_path / "requests.json"
    data.write_text(json.dumps([request(64), request(63)]))
    with running(model=save(mlp(), tmp_path / "m.onnx")) as server:
        server.event("ready")
        document = measured_from_outside(
            f"{protocol}://127.0.0.1:{server.port}", "--data", data, "--concurrency", 1, "--rate", 100
        )
    for load in document["loads"]:
        assert set(load["errors"]) == {kind}
        assert abs(load["errors"][kind] - 25) <= 1
        assert "expected 64, found 63" in load["firstErrors"][kind]
