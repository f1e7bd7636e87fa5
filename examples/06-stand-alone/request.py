"""Print an inference request that asks Magika what kind of file ``sys.argv[1]`` is.

The model takes the first and the last 1,024 bytes without surrounding white space, padded with the token 256.
"""

import json
import sys
from pathlib import Path

content = Path(sys.argv[1]).read_bytes()
head = list(content[:4096].lstrip()[:1024])
tail = list(content[-4096:].rstrip()[-1024:])
tokens = head + [256] * (1024 - len(head)) + [256] * (1024 - len(tail)) + tail
print(json.dumps({"inputs": [{"name": "bytes", "datatype": "INT32", "shape": [1, 2048], "data": tokens}]}))
