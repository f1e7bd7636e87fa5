"""Ask a model 40 times a second and say each second which version answered: ``python ask.py URL MODEL SECONDS``.

``URL`` is the model's; its input is Magika's. Ends with 1 if any request failed.
"""

import http.client
import json
import sys
import time
from collections import Counter
from urllib.parse import urlsplit

url, model, seconds = urlsplit(sys.argv[1]), sys.argv[2], float(sys.argv[3])
tokens = [ord(letter) for letter in "Hello, edge. "] * 78 + [256] * (2048 - 13 * 78)
body = json.dumps({"inputs": [{"name": "bytes", "datatype": "INT32", "shape": [1, 2048], "data": tokens}]})
path = f"{url.path}/v2/models/{model}/infer"
connection = http.client.HTTPConnection(url.hostname, url.port or 80, timeout=10)
total, second, counts, failed = Counter(), 1, Counter(), 0
answered, gap = time.monotonic(), 0.0
began = time.monotonic()
while (now := time.monotonic() - began) < seconds:
    if now >= second:
        print(
            f"{second:4} s  " + "  ".join(f"{version}: {n}" for version, n in sorted(counts.items())),
            flush=True,
        )
        second, counts = second + 1, Counter()
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = json.loads(response.read())
        version = answer["model_version"] if response.status == 200 else f"HTTP {response.status}"
        failed += response.status != 200
    except (OSError, http.client.HTTPException, ValueError) as error:
        connection.close()
        version, failed = type(error).__name__, failed + 1
    else:
        if response.status == 200:
            gap, answered = max(gap, time.monotonic() - answered), time.monotonic()
    counts[version] += 1
    total[version] += 1
    time.sleep(0.025)
print("total   " + "  ".join(f"{version}: {n}" for version, n in sorted(total.items())))
print(f"longest time without an answer: {gap:.1f} s")
sys.exit(1 if failed else 0)
