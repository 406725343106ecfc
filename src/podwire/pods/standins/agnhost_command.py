"""``agnhost`` as a program, for ``kubectl exec POD -- /agnhost ...`` in a Pod that a stand-in plays: a client of the network.

    python -m podwire.pods.standins.agnhost_command connect HOST:PORT --timeout=1s --protocol=tcp|udp|sctp

What belongs here: the subcommands that a person or a test runs in a Pod for their output and exit status, in the Pod's own network and with
its own resolv.conf and hosts. What must not: the servers, which stand-ins play (``agnhost``). It is started for every single connection of
a policy test, hence the standard library alone.

``connect`` says nothing and ends with 0 when it connected (UDP: when ``hostname`` was answered), else with 1 and one of DNS, TIMEOUT,
REFUSED, OTHER and UNKNOWN at the beginning of a line on stderr.

Source: https://github.com/kubernetes/kubernetes/blob/master/test/images/agnhost/README.md
"""

from __future__ import annotations

import argparse
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from podwire.pods.standins.durations import parse_duration

QUESTION = b"hostname\n"
"""What a UDP server of agnhost answers; over UDP nothing less than an answer tells that somebody is there."""
IPPROTO_SCTP = 132


class _Refused(Exception):
    """Why there is no connection: agnhost's word, and its reason if it gives one."""


def main(arguments: Sequence[str]) -> int:
    """Run one subcommand. Returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    match options.command:
        case "connect":
            return _connect(options.address, options.timeout, options.protocol)
        case "dns-suffix":
            print(",".join(_resolver("search")))
        case "dns-server-list":
            print(",".join(_resolver("nameserver")))
        case "etc-hosts":
            print(Path("/etc/hosts").read_text(), end="")
        case "entrypoint-tester":
            print([sys.argv[0], *options.words])
        case "pause":
            print("Paused", flush=True)
            signal.pause()
        case _:
            parser.print_help()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="agnhost", description="Look at the network from inside a Pod.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    connect = commands.add_parser("connect", help="open a connection; say DNS, TIMEOUT, REFUSED or OTHER if there is none")
    connect.add_argument("address", metavar="HOST:PORT")
    connect.add_argument("--timeout", default="0", metavar="DURATION", help="such as 1s or 500ms; 0, the default, is the kernel's")
    connect.add_argument("--protocol", default="tcp", metavar="tcp|udp|sctp")
    commands.add_parser("dns-suffix", help="print the domains in which names are searched")
    commands.add_parser("dns-server-list", help="print the name servers")
    commands.add_parser("etc-hosts", help="print the hosts file")
    commands.add_parser("pause", help="wait for a signal")
    commands.add_parser("entrypoint-tester", help="print the arguments").add_argument("words", nargs="*")
    commands.add_parser("help", help="print this").add_argument("about", nargs="*")
    return parser


def _connect(address: str, timeout: str, protocol: str) -> int:
    try:
        _reach(address, timeout, protocol)
    except _Refused as refused:
        print(refused, file=sys.stderr)
        return 1
    return 0


def _reach(address: str, timeout: str, protocol: str) -> None:
    kinds = {"tcp": (socket.SOCK_STREAM, 0), "udp": (socket.SOCK_DGRAM, 0), "sctp": (socket.SOCK_STREAM, IPPROTO_SCTP)}
    if protocol.lower() not in kinds:
        raise _Refused(f"UNKNOWN: unsupported protocol {protocol!r}: expected tcp, udp or sctp")
    kind, number = kinds[protocol.lower()]
    host, port = _parts(address)
    try:
        seconds = parse_duration(timeout)
        # SCTP is unknown to many resolvers' tables: what is looked for is an address, so any kind serves.
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM if kind is socket.SOCK_DGRAM else socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise _Refused(f"DNS: lookup {host}: {error.strerror}") from error
    except (ValueError, OverflowError, UnicodeError) as error:
        raise _Refused(f"UNKNOWN: {error}") from error
    family, _, _, _, where = found[0]
    try:
        with socket.socket(family, kind, number) as one:
            one.settimeout(seconds or None)
            one.connect(where)
            if kind is socket.SOCK_DGRAM:
                one.send(QUESTION)
                one.recv(4096)
    except TimeoutError as error:  # the kernel's own ETIMEDOUT, too
        raise _Refused("TIMEOUT") from error
    except ConnectionRefusedError as error:
        raise _Refused("REFUSED") from error
    except OSError as error:
        raise _Refused(f"OTHER: {error.strerror or error}") from error


def _parts(address: str) -> tuple[str, str]:
    """Host and port of ``HOST:PORT`` or ``[HOST]:PORT``. Raises _Refused."""
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not port or (":" in host and not bracketed):
        raise _Refused(f"UNKNOWN: address {address}: expected HOST:PORT")
    return host[1:-1] if bracketed else host, port


def _resolver(word: str) -> list[str]:
    """What /etc/resolv.conf says after a word: all name servers, or the last list of domains."""
    found: list[str] = []
    for line in Path("/etc/resolv.conf").read_text().splitlines():
        fields = line.split()
        if fields[:1] == [word]:
            found = fields[1:] if word == "search" else found + fields[1:2]
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
