"""Terminals: pairs of which a program has one end.

A pair is made where the program is, from the devpts that is mounted there: only then has its end a name that the program can find
(``tty``). The peer is asked of the master itself, so no path that a container could have changed leads to it.

Sources: pty(7), ioctl_tty(2) (TIOCGPTPEER), devpts in the kernel's filesystems documentation.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import termios
from typing import Final

from podwire.linux import unix

_TIOCSPTLCK: Final = 0x40045431
_TIOCGPTPEER: Final = 0x5441
_FLAGS: Final = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC


def open_pair() -> tuple[int, int]:
    """Make a terminal; gives the master and the program's end. Raises OSError."""
    try:
        master = os.open("/dev/pts/ptmx", _FLAGS | os.O_NOFOLLOW)
    except OSError:  # the machine's own is not for everybody
        master = os.open("/dev/ptmx", _FLAGS)
    try:
        fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
        return master, fcntl.ioctl(master, _TIOCGPTPEER, _FLAGS)
    except BaseException:
        os.close(master)
        raise


def set_size(terminal: int, columns: int, rows: int) -> None:
    """Give a terminal its size; its programs are told. A size that is none is left as it is."""
    if 0 < columns < 65_536 and 0 < rows < 65_536:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def hand_over(console: int, master: int) -> None:
    """Send a terminal's master through a unix socket, in a packet of its own. Both descriptors stay the caller's."""
    with socket.socket(fileno=os.dup(console)) as through:
        unix.send(through, {}, [master])
