"""A load of real requests in the background; every answer is checked against the version that says it gave it."""

import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np

from testbed import magika_model


@dataclass
class Load:
    """Closed-loop clients that send Magika requests to ``url`` until stopped.

    A failure is anything a caller would notice: a refused or broken connection, a status other than 200, an answer that
    differs from ONNX Runtime's own for the version named in it.

    Attributes:
        url: base URL of a model's Service.
        model: name in the inference path.
        versions: maps ``model_version`` of an answer to ``v1`` or ``v2``.
        clients: number of connections.
    """

    url: str
    model: str
    versions: dict[str, str]
    clients: int = 4
    answers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)

    def __enter__(self) -> "Load":
        self._stop = threading.Event()
        self._cases = [
            (
                json.dumps(magika_model.request(content)).encode(),
                {v: magika_model.expected(v, content) for v in ("v1", "v2")},
            )
            for content in magika_model.SAMPLES.values()
        ]
        self._threads = [
            threading.Thread(target=self._client, args=(n,), daemon=True) for n in range(self.clients)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=30)

    def _client(self, number: int) -> None:
        path = f"/v2/models/{self.model}/infer"
        turn = number
        with httpx.Client(base_url=self.url, timeout=10) as client:
            while not self._stop.is_set():
                body, wanted = self._cases[turn % len(self._cases)]
                turn += 1
                began = time.perf_counter()
                try:
                    response = client.post(path, content=body, headers={"content-type": "application/json"})
                    self._check(response, wanted)
                except httpx.HTTPError as error:
                    self.failures.append(f"{time.strftime('%X')} {type(error).__name__}: {error}")
                self.latencies.append(time.perf_counter() - began)

    def _check(self, response: httpx.Response, wanted: dict[str, Any]) -> None:
        if response.status_code != 200:
            self.failures.append(f"{time.strftime('%X')} HTTP {response.status_code}: {response.text[:200]}")
            return
        answer = response.json()
        version = answer["model_version"]
        self.answers[version] += 1
        if not np.allclose(magika_model.scores(answer), wanted[self.versions[version]], rtol=1e-5, atol=1e-6):
            self.failures.append(f"wrong answer from version {version}")
