"""Redis as a client sees it first: strings, counters, lists of keys, expiry, INFO; one store for each container, in memory.

Both forms of a request are read: arrays of bulk strings (RESP) and lines of words, as a person types them.

Source: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Callable, Sequence

from podwire.pods.standins.session import Part, Place, Session

_LONGEST = 1 << 20
"""Bytes of one request."""
_MOST_KEYS = 10_000
VERSION = "8.2.1"


class Unfinished(Exception):
    """More bytes are needed."""


class Refused(Exception):
    """An error's words, as the client gets them behind ``-``."""


def simple(words: str) -> bytes:
    return b"+%b\r\n" % words.encode()


def number(value: int) -> bytes:
    return b":%d\r\n" % value


def bulk(value: bytes | None) -> bytes:
    return b"$-1\r\n" if value is None else b"$%d\r\n%b\r\n" % (len(value), value)


def array(values: Sequence[bytes]) -> bytes:
    """An array of replies that are encoded already."""
    return b"*%d\r\n" % len(values) + b"".join(values)


class Store:
    """The keys of one server."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._values: dict[bytes, bytes] = {}
        self._ends: dict[bytes, float] = {}
        self._clock = clock

    def get(self, key: bytes) -> bytes | None:
        if key in self._ends and self._ends[key] <= self._clock():
            self.delete(key)
        return self._values.get(key)

    def put(self, key: bytes, value: bytes, seconds: float | None = None) -> None:
        if key not in self._values and len(self._values) >= _MOST_KEYS:
            raise Refused("OOM command not allowed when used memory > 'maxmemory'.")
        self._values[key] = value
        self._ends.pop(key, None)
        if seconds is not None:
            self._ends[key] = self._clock() + seconds

    def delete(self, key: bytes) -> bool:
        self._ends.pop(key, None)
        return self._values.pop(key, None) is not None

    def expire(self, key: bytes, seconds: float) -> bool:
        if self.get(key) is None:
            return False
        self._ends[key] = self._clock() + seconds
        return True

    def left(self, key: bytes) -> int:
        """Seconds until it goes: -1 for ever, -2 no such key."""
        if self.get(key) is None:
            return -2
        return max(0, round(self._ends[key] - self._clock())) if key in self._ends else -1

    def living(self) -> list[bytes]:
        return [key for key in list(self._values) if self.get(key) is not None]

    def add(self, key: bytes, step: int) -> int:
        try:
            value = int(self.get(key) or b"0") + step
        except ValueError:
            raise Refused("ERR value is not an integer or out of range") from None
        ends = self._ends.get(key)
        self.put(key, b"%d" % value)
        if ends is not None:
            self._ends[key] = ends
        return value

    def clear(self) -> None:
        self._values.clear()
        self._ends.clear()


class Redis(Part):
    """One server."""

    def __init__(self) -> None:
        self._store = Store()

    def talk(self, place: Place) -> Session:
        return Talk(self._store, place.port)


class Talk(Session):
    """One connection."""

    def __init__(self, store: Store, port: int = 6379) -> None:
        self.closing = False
        self._store, self._port = store, port
        self._heard = bytearray()

    def close(self) -> None:
        """Nothing is under way."""

    def receive(self, data: bytes) -> bytes:
        self._heard += data
        out = bytearray()
        while self._heard and not self.closing:
            try:
                words, length = request(bytes(self._heard))
            except Unfinished:
                break
            except Refused as refused:
                out += b"-%b\r\n" % str(refused).encode()
                self.closing = True
                break
            del self._heard[:length]
            if words:
                try:
                    out += self._answer(words[0].decode("latin-1").upper(), words[1:])
                except Refused as refused:
                    out += b"-%b\r\n" % str(refused).encode()
        return bytes(out)

    def _answer(self, command: str, words: list[bytes]) -> bytes:
        least = _LEAST.get(command)
        if least is None:
            shown = " ".join(f"'{word.decode('latin-1')[:128]}'" for word in words[:5])
            raise Refused(f"ERR unknown command '{command[:128]}', with args beginning with: {shown}")
        if len(words) < least:
            raise Refused(f"ERR wrong number of arguments for '{command.lower()}' command")
        return self._keys(command, words) if least else self._server(command, words)

    def _keys(self, command: str, words: list[bytes]) -> bytes:
        store, key = self._store, words[0]
        match command:
            case "GET":
                return bulk(store.get(key))
            case "SET":
                return self._set(words)
            case "MGET":
                return array([bulk(store.get(one)) for one in words])
            case "DEL" | "UNLINK":
                return number(sum(store.delete(one) for one in words if store.get(one) is not None))
            case "EXISTS":
                return number(sum(store.get(one) is not None for one in words))
            case "INCR" | "DECR":
                return number(store.add(key, 1 if command == "INCR" else -1))
            case "INCRBY" | "DECRBY":
                step = _integer(words[1])
                return number(store.add(key, step if command == "INCRBY" else -step))
            case "APPEND":
                value = (store.get(key) or b"") + words[1]
                store.put(key, value)
                return number(len(value))
            case "EXPIRE":
                return number(store.expire(key, _integer(words[1])))
            case "TTL":
                return number(store.left(key))
            case "TYPE":
                return simple("none" if store.get(key) is None else "string")
            case "KEYS":
                pattern = key.decode("latin-1")
                found = [one for one in store.living() if fnmatch.fnmatchcase(one.decode("latin-1"), pattern)]
                return array([bulk(one) for one in found])
        return bulk(key)  # ECHO

    def _set(self, words: list[bytes]) -> bytes:
        key, value, *options = words
        seconds: float | None = None
        wanted: bool | None = None
        while options:
            match options.pop(0).upper():
                case b"EX" if options:
                    seconds = float(_integer(options.pop(0)))
                case b"PX" if options:
                    seconds = _integer(options.pop(0)) / 1000
                case b"NX":
                    wanted = False
                case b"XX":
                    wanted = True
                case _:
                    raise Refused("ERR syntax error")
        if wanted is not None and (self._store.get(key) is not None) is not wanted:
            return bulk(None)
        self._store.put(key, value, seconds)
        return simple("OK")

    def _server(self, command: str, words: list[bytes]) -> bytes:
        match command:
            case "PING":
                return bulk(words[0]) if words else simple("PONG")
            case "QUIT":
                self.closing = True
                return simple("OK")
            case "DBSIZE":
                return number(len(self._store.living()))
            case "FLUSHALL" | "FLUSHDB":
                self._store.clear()
                return simple("OK")
            case "INFO":
                keys = len(self._store.living())
                server = ("# Server", f"redis_version:{VERSION}", "redis_mode:standalone", f"tcp_port:{self._port}", "")
                rest = ("# Replication", "role:master", "connected_slaves:0", "", "# Keyspace", f"db0:keys={keys},expires=0,avg_ttl=0")
                return bulk("".join(f"{line}\r\n" for line in (*server, *rest[: None if keys else -1])).encode())
            case "COMMAND":
                return array([])
            case "HELLO":
                if words and words[0] != b"2":
                    raise Refused("NOPROTO unsupported protocol version")
                fields = {b"server": bulk(b"redis"), b"version": bulk(VERSION.encode()), b"proto": number(2), b"role": bulk(b"master")}
                return array([part for name, value in fields.items() for part in (bulk(name), value)])
        return simple("OK")  # SELECT, CLIENT, CONFIG, AUTH


_LEAST = {
    **dict.fromkeys(("PING", "QUIT", "DBSIZE", "FLUSHALL", "FLUSHDB", "INFO", "COMMAND", "HELLO", "SELECT", "CLIENT", "CONFIG", "AUTH"), 0),
    **dict.fromkeys(("GET", "MGET", "DEL", "UNLINK", "EXISTS", "INCR", "DECR", "TTL", "TYPE", "KEYS", "ECHO"), 1),
    **dict.fromkeys(("SET", "INCRBY", "DECRBY", "APPEND", "EXPIRE"), 2),
}
"""How many words each command needs at least."""


def _integer(text: bytes) -> int:
    try:
        return int(text)
    except ValueError:
        raise Refused("ERR value is not an integer or out of range") from None


def request(data: bytes) -> tuple[list[bytes], int]:
    """Read the words of the first request and the bytes that it took. Raises Unfinished, Refused."""
    if not data.startswith(b"*"):
        line, end = _line(data, 0)
        return line.split(), end
    text, at = _line(data, 0)
    words = []
    for _ in range(_length(text[1:], 1024)):
        head, at = _line(data, at)
        if not head.startswith(b"$"):
            raise Refused(f"ERR Protocol error: expected '$', got '{head[:1].decode('latin-1')}'")
        length = _length(head[1:], _LONGEST)
        if len(data) < at + length + 2:
            raise Unfinished
        words.append(data[at : at + length])
        at += length + 2
    return words, at


def _line(data: bytes, at: int) -> tuple[bytes, int]:
    end = data.find(b"\n", at)
    if end < 0:
        if len(data) - at > 65536:
            raise Refused("ERR Protocol error: too big inline request")
        raise Unfinished
    return data[at:end].rstrip(b"\r"), end + 1


def _length(text: bytes, most: int) -> int:
    if not text.isdigit() or int(text) > most:
        raise Refused("ERR Protocol error: invalid bulk length")
    return int(text)
