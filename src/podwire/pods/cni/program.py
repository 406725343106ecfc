"""The program ``podwire-cni``: hands the call to the node's agent and its answer back; without an agent it works by itself.

A runtime starts it for every container, so it loads nothing but two of the interpreter's own modules: what takes its time is Python's
start alone. On the socket it says, in one stream: the length of what follows as four bytes, ``KEY=VALUE`` of every CNI variable with a zero
byte after each, then the configuration as it came from stdin; the descriptor of CNI_NETNS beside the first bytes. The answer is one byte,
the exit status, and then stdout.

The socket is the configuration's field ``socket``, else PODWIRE_CNI_SOCKET, else /run/podwire/cni.sock.
"""

from __future__ import annotations

import _socket
import posix
import sys

DEFAULT_SOCKET = b"/run/podwire/cni.sock"
SOCKET_VARIABLE = b"PODWIRE_CNI_SOCKET"
_PIECE = 65536


def main(installed: tuple[str, ...] = ()) -> None:
    """Carry out one call and end the process. ``installed``: where what the plugin needs by itself is, beyond the standard library."""
    environment = {key: value for key, value in posix.environ.items() if key.startswith(b"CNI_") or key in {b"PATH", SOCKET_VARIABLE}}
    if b"CNI_COMMAND" not in environment:
        posix.write(2, b"podwire-cni is a CNI plugin: a container runtime calls it with CNI_COMMAND and a configuration on stdin\n")
    body = b"".join(iter(lambda: posix.read(0, _PIECE), b""))
    answer = _asked(environment, body)
    if answer is None:
        answer = _alone(environment, body, installed)
    output = answer[1:]
    while output:
        output = output[posix.write(1, output) :]
    posix._exit(answer[0])


def _asked(environment: dict[bytes, bytes], body: bytes) -> bytes | None:
    """The agent's answer; None where there is no agent."""
    path = _socket_of(environment, body)
    stream = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0)
    try:
        stream.connect(path)
    except OSError:
        return None
    try:
        namespace = posix.open(environment[b"CNI_NETNS"], posix.O_RDONLY | posix.O_CLOEXEC)
    except (KeyError, OSError):
        namespace = -1  # the agent says what is wrong with that, if the command needs it
    words = b"".join(key + b"=" + value + b"\0" for key, value in environment.items())
    data = len(words).to_bytes(4, "big") + words + body
    beside = [] if namespace < 0 else [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, namespace.to_bytes(4, sys.byteorder))]
    try:
        sent = stream.sendmsg([data], beside)
        stream.sendall(data[sent:])
        stream.shutdown(_socket.SHUT_WR)
        answer = b"".join(iter(lambda: stream.recv(_PIECE), b""))
    except OSError:
        answer = b""
    words = b'{"cniVersion": "1.0.0", "code": 11, "msg": "the agent at ' + path + b' ended before it had answered"}\n'
    return answer or b"\1" + words


def _socket_of(environment: dict[bytes, bytes], body: bytes) -> bytes:
    if b'"socket"' in body:
        import json  # doubles the time that this program takes: the variable is the better place

        try:
            named = json.loads(body).get("socket")
        except (AttributeError, ValueError):
            named = None
        if isinstance(named, str):
            return named.encode()
    return environment.get(SOCKET_VARIABLE, DEFAULT_SOCKET)


def _alone(environment: dict[bytes, bytes], body: bytes, installed: tuple[str, ...]) -> bytes:
    sys.path.extend(installed)
    from podwire.pods.cni.plugin import Plugin

    words = {key.decode(errors="surrogateescape"): value.decode(errors="surrogateescape") for key, value in environment.items()}
    status, output = Plugin().answer(words, body)
    return bytes((status,)) + output


if __name__ == "__main__":
    main()
