"""podwire capture: packets at a place of the network, as pcap or as lines."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import BinaryIO

import click

from podwire.cli.place import name_option


@click.command(context_settings={"ignore_unknown_options": False})
@name_option
@click.option("-w", "--write", metavar="FILE|-", help="write pcap to a file, or with - to standard output")
@click.option("-i", "--interface", metavar="NAME", default="", help="one interface of the place  [default: all]")
@click.option("-c", "--count", type=click.IntRange(1), metavar="N", help="end after so many packets")
@click.argument("where")
@click.argument("expression", metavar="[FILTER]", nargs=-1)
def capture(name: str, write: str | None, interface: str, count: int | None, where: str, expression: tuple[str, ...]) -> None:
    """Capture packets at WHERE (internet, node/NAME, pod/NAMESPACE/NAME ...); ends with Ctrl-C.

    FILTER is a part of tcpdump's language: ip ip6 tcp udp icmp, src|dst, host, net, port, portrange, and, or, not, ( ).
    """
    from podwire.cluster import execution
    from podwire.wire.filter import BadFilter, compile_filter

    text = " ".join(expression)
    try:
        compile_filter(text)
    except BadFilter as error:
        raise click.UsageError(str(error)) from None
    output = sys.stdout.fileno()
    if write is not None and write != "-":
        try:
            output = os.open(write, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise click.ClickException(f"cannot write {write}: {error.strerror}") from None
    elif write == "-" and sys.stdout.isatty():
        raise click.UsageError("-w - would write binary to the terminal: redirect it, for instance to `| tcpdump -r -`")
    command = [sys.executable, "-m", "podwire.cli.capture", "pcap" if write else "lines", interface, str(count or 0), text]
    sys.exit(execution.run(name, where, command, stdout=output))


def inside(form: str, interface: str, count: int, text: str) -> int:
    """Capture in this process's namespace and write to standard output; the part that the lab starts at the place."""
    from podwire.linux.capture import Capture
    from podwire.wire import pcap
    from podwire.wire.filter import compile_filter

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    out: BinaryIO = sys.stdout.buffer
    seen = lost = 0
    try:
        with Capture(interface, compile_filter(text)) as packets:
            if form == "pcap":
                out.write(pcap.header())
                out.flush()
            print(f"capturing on {interface or 'all interfaces'}", file=sys.stderr, flush=True)
            try:
                while not count or seen < count:
                    packet = packets.receive()
                    seen += 1
                    out.write(pcap.record(packet) if form == "pcap" else _line(packet).encode())
                    out.flush()
            except KeyboardInterrupt:
                pass
            lost = packets.lost()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        print(f"Error: cannot capture on {interface or 'all interfaces'}: {error.strerror}", file=sys.stderr)
        return 1
    print(f"{seen} packet{'' if seen == 1 else 's'} captured, {lost} lost for want of room", file=sys.stderr)
    return 0


def _line(packet: object) -> str:
    import socket

    from podwire.wire import pcap

    assert isinstance(packet, pcap.Packet)
    seconds, nanoseconds = divmod(packet.time_ns, 1_000_000_000)
    clock = time.strftime("%H:%M:%S", time.localtime(seconds))
    way = "Out" if packet.direction == 4 else "In"
    return f"{clock}.{nanoseconds // 1000:06d} {socket.if_indextoname(packet.interface)} {way} {pcap.line(packet)}\n"


if __name__ == "__main__":
    sys.exit(inside(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]))
