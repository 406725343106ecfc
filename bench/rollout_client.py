"""One client of the benchmark ``rollout``: asks a Service again and again, until its input ends. Runs in a Pod, with Python's own library.

    rollout_client.py HOST PORT kept|new

``kept``: one connection is kept open until the server says that it closes it. ``new``: a connection for each request. A request is lost
when it is refused, reset, cut off, answered with another status than 200, or not answered in time: nothing is asked again. A line
with the count so far now and then; at the end one line of JSON.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import sys
from collections import Counter

TIMEOUT_S = 5.0
EVERY, LAST = 200, 300


def main() -> None:
    host, port, mode = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    os.set_blocking(0, False)
    asked, lost, answered = 0, Counter[str](), Counter[str]()
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    last: list[str] = []
    while not ended():
        try:
            connection.request("GET", "/")  # http.client connects anew after an answer with Connection: close
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200:
                raise http.client.HTTPException(f"status {answer.status}")
            name = json.loads(body)["pod"]["name"]
            answered[name] += 1
            last = [*last[-LAST:], name]
            if mode == "new":
                connection.close()
        except (OSError, http.client.HTTPException) as error:
            lost[f"{type(error).__name__}: {error}"] += 1
            connection.close()
        asked += 1
        if asked % EVERY == 0:
            print(asked, flush=True)
    print(json.dumps({"asked": asked, "lost": lost, "answered": answered, "last": sorted(set(last))}), flush=True)


def ended() -> bool:
    with contextlib.suppress(BlockingIOError):
        return os.read(0, 1) == b""
    return False


if __name__ == "__main__":
    main()
