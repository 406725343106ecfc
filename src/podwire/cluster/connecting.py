"""Tries connections from the place where it is started: ``python -m podwire.cluster.connecting JSON``, and prints what came of each.

The argument is a list of ``{"id", "host", "port", "protocol", "timeout", "attempts", "wanted"}``; the answer a mapping of ids to outcomes
(``checks.OUTCOMES``). ``wanted``: an attempt that has this outcome is the last; with "" an attempt that connects is.

A server that is asked over UDP has to answer something: what is not answered cannot be told from what is dropped.
"""

from __future__ import annotations

import errno
import json
import socket
import sys
import threading
import time
from typing import Any, Final

_BETWEEN_S: Final = 0.2
_UNREACHABLE: Final = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.EACCES, errno.EPERM}
_DATAGRAM: Final = b"podwire check\n"


def outcome(host: str, port: int, protocol: str, timeout_s: float) -> str:
    """Try once."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM)
    except (socket.gaierror, UnicodeError):
        return "unknown name"
    family, kind, _, _, address = found[0]
    with socket.socket(family, kind) as trying:
        trying.settimeout(timeout_s)
        try:
            trying.connect(address)
            if protocol == "udp":
                trying.send(_DATAGRAM)
                trying.recv(65536)
        except TimeoutError:
            return "no answer"
        except ConnectionRefusedError:
            return "refused"
        except OSError as error:
            return "unreachable" if error.errno in _UNREACHABLE else "no answer"
    return "connected"


def attempts(one: dict[str, Any]) -> str:
    """Try as often as is wanted."""
    last = ""
    for number in range(int(one["attempts"])):
        if number:
            time.sleep(_BETWEEN_S)
        last = outcome(one["host"], int(one["port"]), one["protocol"], float(one["timeout"]))
        if last == (one["wanted"] or "connected"):
            break
    return last


def main(text: str) -> None:
    found: dict[str, str] = {}

    def work(one: dict[str, Any]) -> None:
        found[one["id"]] = attempts(one)

    threads = [threading.Thread(target=work, args=(one,)) for one in json.loads(text)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
