"""The zone: from a question's bytes to an answer's bytes.

What belongs here: the table of ready-made answers, kept up to date Service by Service, and the few answers that are made when
asked. What must not: what records a Service has (desired.py), sockets.

How it works: an answer stands under the question as it comes, name in lower case, type and class. A hit costs one look-up; nothing
is parsed but the header, and the answer repeats the question's bytes, so it keeps their case. Names in answers are pointers to
byte 12, where the question's name always is. What has no ready answer is decided by name: a name that exists without such a record
(NODATA), a name that does not (NXDOMAIN), both with the zone's SOA record; an address of a Pod in dashes; a CNAME and what stands
at its end if that is ours; and a name that is none of ours, which ``respond`` leaves to its caller.

Addresses of one name come in a turning order, so that clients that take the first spread.

TTL: 30 s, negative answers too, as GKE's and kubeadm's cluster DNS have it.

Sources: RFC 1034 4.3.2, RFC 2308 (negative answers), RFC 6891 (EDNS), RFC 8482 (ANY), RFC 8020 (names above a name exist).
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from podwire.dns.desired import SCHEMA, Owned, Records, address_type, packed, pod_address
from podwire.wire import dns

TTL = 30
LARGEST_UDP = 1232  # what fits into one packet everywhere: https://www.dnsflagday.net/2020/
_REVERSE = {4: dns.name("in-addr.arpa"), 6: dns.name("ip6.arpa")}
_HH = struct.Struct("!HH")
_SUFFIX = {kind: _HH.pack(kind, dns.IN) for kind in (dns.A, dns.AAAA, dns.CNAME, dns.SRV, dns.PTR, dns.TXT, dns.SOA, dns.NS)}
_OPT = dns.opt(LARGEST_UDP)
_BADVERS = dns.opt(LARGEST_UDP, 1)
_COUNTS = struct.Struct("!HHHHHH")


class NotOurs(Exception):
    """A question about a name outside the zone: to be forwarded, or refused."""


@dataclass(slots=True)
class Answer:
    """``body`` are ``count`` records of the answer section, each ``stride`` bytes long if that is not 0; ``extra`` may be left out."""

    rcode: int
    count: int
    body: bytes
    stride: int = 0
    authorities: int = 0
    extra_count: int = 0
    extra: bytes = b""
    turn: int = 0


class Zone:
    """``domain`` is text, ``ranges`` are those whose PTR records are ours, ``dns_addresses`` those of the server itself.

    ``recursive`` says that names of others are forwarded, so that answers may say so.
    """

    def __init__(
        self,
        domain: str,
        ranges: Iterable[str] = (),
        dns_addresses: Iterable[str] = (),
        *,
        ttl: int = TTL,
        serial: int = 1,
        recursive: bool = False,
    ) -> None:
        self.domain = dns.name(domain).lower()
        self._ranges = [ipaddress.ip_network(text) for text in ranges]
        self._ttl, self._recursive = ttl, recursive
        self._answers: dict[bytes, Answer] = {}
        self._names: dict[bytes, int] = {}
        self._services: dict[str, Records] = {}
        self._pointers: dict[bytes, dict[str, tuple[bytes, ...]]] = {}
        self._targets: dict[bytes, bytes] = {}  # of CNAME records
        primary = dns.name("ns.dns")[:-1] + self.domain
        start = dns.soa(primary, dns.name("hostmaster")[:-1] + self.domain, serial, 7200, 1800, 86400, ttl)
        self._soa = {zone: dns.Record(zone, dns.SOA, ttl, start).encode() for zone in (self.domain, *_REVERSE.values())}
        self._negative = {
            (zone, rcode): Answer(rcode, 0, b"", authorities=1, extra=record)
            for zone, record in self._soa.items()
            for rcode in (dns.NOERROR, dns.NXDOMAIN)
        }
        self._pods = dns.name("pod")[:-1] + self.domain
        addresses = tuple(dns_addresses)
        own: Records = {
            (self.domain, dns.SOA): Owned((start,)),
            (self.domain, dns.NS): Owned((primary,), tuple((primary, address_type(a), packed(a)) for a in addresses)),
            (dns.name("dns-version")[:-1] + self.domain, dns.TXT): Owned((dns.txt(SCHEMA),)),
        }
        for kind in {address_type(address) for address in addresses}:
            own[(primary, kind)] = Owned(tuple(packed(a) for a in addresses if address_type(a) == kind))
        self.put("", own)
        for name in (primary, self._pods, dns.name("svc")[:-1] + self.domain):
            self._count(name, 1)

    # Taking in -------------------------------------------------------------------------------------------------------------

    def put(self, key: str, records: Records) -> None:
        """Replace all records of one Service; an empty table removes them."""
        old = self._services.get(key, {})
        if old == records:
            return
        for owner, kind in old.keys() - records.keys():
            self._set(key, owner, kind, None)
            self._count(owner, -1)
        for (owner, kind), owned in records.items():
            before = old.get((owner, kind))
            if before is None:
                self._count(owner, 1)
            if before != owned:
                self._set(key, owner, kind, owned)
        if records:
            self._services[key] = records
        else:
            self._services.pop(key, None)

    def _set(self, key: str, owner: bytes, kind: int, owned: Owned | None) -> None:
        place = owner + _SUFFIX[kind]
        if kind == dns.PTR:  # the one kind of name that Services share: an address may be an endpoint of several
            claims = self._pointers.setdefault(owner, {})
            claims.pop(key, None)
            if owned is not None:
                claims[key] = owned.data
            merged = tuple(dict.fromkeys(data for service in sorted(claims) for data in claims[service]))
            owned = Owned(merged) if merged else None
            if not claims:
                del self._pointers[owner]
        if kind == dns.CNAME:
            self._targets.pop(owner, None)
            if owned is not None:
                self._targets[owner] = owned.data[0]
        if owned is None:
            del self._answers[place]
        else:
            self._answers[place] = self._answer(kind, owned)

    def _answer(self, kind: int, owned: Owned) -> Answer:
        body = b"".join([dns.Record(b"", kind, self._ttl, data).encode(dns.QUESTION_NAME) for data in owned.data])
        extra = b"".join([dns.Record(name, each, self._ttl, data).encode() for name, each, data in owned.extra])
        stride = len(body) // len(owned.data) if kind in (dns.A, dns.AAAA) else 0
        return Answer(dns.NOERROR, len(owned.data), body, stride, 0, len(owned.extra), extra)

    def _count(self, owner: bytes, by: int) -> None:
        names = self._names
        for name in (owner, *dns.parents(owner)):
            count = names.get(name, 0) + by
            if count:
                names[name] = count
            else:
                del names[name]
            if name in self._soa:
                return

    def __len__(self) -> int:
        return len(self._answers)

    # Answering ---------------------------------------------------------------------------------------------------------------

    def respond(self, query: bytes, *, udp: bool, synced: bool = True) -> bytes | None:
        """Answer a message. None: to be dropped without an answer (no query at all).

        Raises NotOurs for a name outside the zone.
        """
        try:
            number, flags, questions, answers, authorities, additionals = _COUNTS.unpack_from(query)
        except struct.error:
            return None
        if flags & dns.QR:
            return None
        if flags & 0x7800 or questions != 1 or answers or authorities or additionals > 1:
            return self._odd(query, number, flags)
        end = query.find(b"\0", 12) + 5  # no byte of a name in the table but the last is 0, so what is found is the whole name
        if end < 17 or end > len(query):
            return self.failure(query, dns.FORMERR)
        size = dns.UDP_SIZE if udp else 0xFFFF
        edns = b""
        if additionals:
            if query[end : end + 3] != b"\0\0\x29" or len(query) < end + 11:
                return self._odd(query, number, flags)
            if query[end + 6]:
                return self._assemble(query, end, flags, Answer(dns.NOERROR, 0, b""), size, _BADVERS)
            if udp:
                size = max(size, min(query[end + 3] << 8 | query[end + 4], LARGEST_UDP))
            edns = _OPT
        if not synced:
            return self.failure(query[:end], dns.SERVFAIL)
        found = self._answers.get(query[12 : end - 4].lower() + query[end - 4 : end])
        if found is None:
            try:
                found = self._make(query[12 : end - 4].lower(), *_HH.unpack_from(query, end - 4))
            except dns.Malformed:  # a pointer, or a byte 0 within a label: where the question ends is not known
                return dns.Message(number, dns.QR | flags & dns.RD, dns.FORMERR).encode()
        return self._assemble(query, end, flags, found, size, edns)

    def failure(self, query: bytes, rcode: int) -> bytes:
        """Answer that it cannot be answered. The question is repeated if it can be read."""
        number, flags = _HH.unpack_from(query)
        end = query.find(b"\0", 12) + 5
        question = query[12:end] if 17 <= end <= len(query) else b""
        flags = dns.QR | flags & (0x7800 | dns.RD) | (dns.RA if self._recursive else 0) | rcode
        return _COUNTS.pack(number, flags, bool(question), 0, 0, 0) + question

    def _assemble(self, query: bytes, end: int, flags: int, answer: Answer, size: int, edns: bytes) -> bytes:
        body, count, extra_count, extra = answer.body, answer.count, answer.extra_count, answer.extra
        stride = answer.stride
        if stride and count > 1:
            answer.turn = turn = (answer.turn + 1) % count
            if turn:
                body = body[turn * stride :] + body[: turn * stride]
        flags = dns.QR | dns.AA | flags & dns.RD | (dns.RA if self._recursive else 0) | answer.rcode
        room, authorities = size - end - len(edns), answer.authorities
        if len(body) + len(extra) > room:
            authorities, extra_count, extra = 0, 0, b""
            if len(body) > room:
                flags |= dns.TC
                count = room // stride if stride else 0
                body = body[: count * stride]
        counts = _COUNTS.pack(query[0] << 8 | query[1], flags, 1, count, authorities, extra_count + bool(edns))
        return b"".join((counts, query[12:end], body, extra, edns))

    def _odd(self, query: bytes, number: int, flags: int) -> bytes:
        """Answer what is no plain question: other operations, several questions, records where a query has none."""
        opcode = flags & 0x7800
        try:
            message = dns.decode(query)
        except dns.Malformed:
            return dns.Message(number, dns.QR | opcode | flags & dns.RD, dns.FORMERR).encode()
        if opcode:
            return self.failure(query, dns.NOTIMP)
        if len(message.questions) != 1:
            return dns.Message(number, dns.QR | flags & dns.RD, dns.FORMERR).encode()
        plain = dns.Message(number, flags & dns.RD, questions=message.questions, edns_size=message.edns_size)
        return self.respond(plain.encode(), udp=True) or b""

    def _make(self, name: bytes, kind: int, klass: int) -> Answer:
        """Decide what has no ready answer. Raises NotOurs, Malformed."""
        zone = self._zone_of(name)
        if zone is None or klass not in (dns.IN, dns.ANY):
            raise NotOurs(dns.text(name))
        if name.endswith(self._pods) and name != self._pods:
            return self._pod(name, kind)
        alias = self._answers.get(name + _SUFFIX[dns.CNAME])
        if alias is not None:
            return self._follow(name, kind, alias)
        if name in self._names:
            if kind == dns.ANY:  # one of what there is will do: RFC 8482
                there = (self._answers.get(name + suffix) for suffix in _SUFFIX.values())
                return next((answer for answer in there if answer is not None), self._nothing(zone, dns.NOERROR))
            return self._nothing(zone, dns.NOERROR)
        return self._nothing(zone, dns.NXDOMAIN)

    def _nothing(self, zone: bytes, rcode: int) -> Answer:
        return self._negative[zone, rcode]

    def _zone_of(self, name: bytes) -> bytes | None:
        """Give the zone that a name is in, None if it is none of ours. Raises Malformed."""
        cuts = dns.cuts(name)
        if name.endswith(self.domain) and len(name) - len(self.domain) in cuts:
            return self.domain
        for zone in _REVERSE.values():
            if name.endswith(zone) and len(name) - len(zone) in cuts and (name in self._names or self._in_ranges(name)):
                return zone
        return None

    def _in_ranges(self, name: bytes) -> bool:
        labels = [label.decode(errors="replace") for label in reversed(dns.labels(name)[:-2])]
        text = ".".join(labels) if name.endswith(_REVERSE[4]) else ":".join("".join(labels[i : i + 4]) for i in range(0, len(labels), 4))
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        return any(address in each for each in self._ranges)

    def _pod(self, name: bytes, kind: int) -> Answer:
        labels = dns.labels(name[: -len(self._pods)] + b"\0")
        address = pod_address(labels)
        if len(labels) == 1:
            return self._nothing(self.domain, dns.NOERROR)  # a namespace
        if address is None:
            return self._nothing(self.domain, dns.NXDOMAIN)
        if kind not in (address_type(address), dns.ANY):
            return self._nothing(self.domain, dns.NOERROR)
        return self._answer(address_type(address), Owned((packed(address),)))

    def _follow(self, name: bytes, kind: int, alias: Answer) -> Answer:
        """A CNAME, and behind it what stands at its end if that is in the zone."""
        if kind in (dns.CNAME, dns.ANY):
            return alias
        body, count, seen = alias.body, alias.count, {name}
        target = self._targets[name]
        while target not in seen:
            seen.add(target)
            found = self._answers.get(target + _HH.pack(kind, dns.IN)) or self._answers.get(target + _SUFFIX[dns.CNAME])
            if found is None:
                break
            body, count = body + _renamed(found.body, target), count + found.count
            target = self._targets.get(target, target)
        return Answer(dns.NOERROR, count, body)


def _renamed(body: bytes, owner: bytes) -> bytes:
    """Give records that begin with a pointer to the question another owner."""
    pieces, at = [], 0
    while at < len(body):
        length = 12 + (body[at + 10] << 8 | body[at + 11])
        pieces.append(owner + body[at + 2 : at + length])
        at += length
    return b"".join(pieces)
