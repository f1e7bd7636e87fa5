"""How long a peer may take, whichever version of HTTP it speaks."""

IDLE_SECONDS = 75.0
# A request has this long to arrive, plus a second for every so many bytes that did: a slow link is fine.
REQUEST_SECONDS = 30.0
FLOOR_BYTES_PER_SECOND = 16 * 1024
# A response not read by then is given up.
WRITE_SECONDS = 60.0
