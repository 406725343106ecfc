"""The logs of stand-ins: one line a request, in the file that ``kubectl logs`` reads, made with the first line.

A line is ``CALLER "METHOD TARGET" STATUS BYTES "USER-AGENT"``. Probes of the node are not in it: a Pod that nobody calls has no log. Of
the files only a few are open at any time, since a process of an ordinary user may have no more than 1,024.
"""

from __future__ import annotations

import logging
from collections import OrderedDict

from podwire.pods.logs.file import LogFile, path_of, remove_older
from podwire.pods.standins.messages import Role
from podwire.pods.standins.session import Answer, Place, Request

OPEN = 32
PROBE = "kube-probe/"
log = logging.getLogger("podwire.standins")


def line(place: Place, request: Request, answer: Answer) -> str:
    """The words of one request, without what would begin another line."""
    words = f"{request.method} {request.target}"
    text = f'{place.caller[0]} "{words}" {answer.status} {len(answer.body)} "{request.headers.get("user-agent", "-")}"'
    return text if text.isprintable() else "".join(one if one.isprintable() else "?" for one in text)


class AccessLogs:
    """The files of all Pods of this process."""

    def __init__(self) -> None:
        self._files: OrderedDict[tuple[str, str], LogFile] = OrderedDict()

    def write(self, place: Place, request: Request, answer: Answer) -> None:
        """Write the line of a request that is answered. What cannot be written is lost, and nobody waits for it."""
        role = place.role
        if not role.logs or not place.container or request.headers.get("user-agent", "").startswith(PROBE):
            return
        try:
            self._file(role, place.container).line(line(place, request, answer))
        except OSError as error:
            log.debug("%s/%s: a line of its log is lost: %s", role.namespace, role.name, error)

    def _file(self, role: Role, container: str) -> LogFile:
        key, run = (role.uid, container), role.runs.get(container, 0)
        path = path_of(role.logs, role.uid, container, run)
        found = self._files.get(key)
        if found is None or found.path != path:
            if found is not None:
                found.close()
                remove_older(path)
            found = self._files[key] = LogFile(path)
        self._files.move_to_end(key)
        while len(self._files) > OPEN:
            self._files.popitem(last=False)[1].close()
        return found

    def forget(self, uid: str) -> None:
        """A Pod is gone."""
        for key in [key for key in self._files if key[0] == uid]:
            self._files.pop(key).close()
