"""The plugin: the specification's verbs, carried out. By call here; ``program`` and ``server`` are the ways in for others.

A ``Plugin`` belongs to one thread at a time; several, in one process or in many, may work on one network: what they share is on disk,
under the network's lock.

Source: https://www.cni.dev/docs/spec/#cni-operations
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from typing import Any

from podwire.linux import namespaces
from podwire.linux.errors import KernelRefused, NamespaceGone
from podwire.linux.network import Network
from podwire.pods import wiring
from podwire.pods.addresses import AddressTaken, RangeExhausted
from podwire.pods.cni import configuration, effects, results
from podwire.pods.cni.attachments import Attachment, Ledger, merged, owner_of
from podwire.pods.cni.configuration import LATEST, VERSIONS, Configuration, Ipam, Tree
from podwire.pods.cni.errors import (
    ADDRESS_TAKEN,
    BRIDGE_FULL,
    DECODING_FAILURE,
    FAULT,
    HOST_PORT_TAKEN,
    INCOMPATIBLE_VERSION,
    INVALID_CONFIGURATION,
    INVALID_ENVIRONMENT,
    IO_FAILURE,
    KERNEL_REFUSED,
    NOT_AS_MADE,
    TRY_AGAIN_LATER,
    UNAVAILABLE,
    UNKNOWN_CONTAINER,
    CniError,
    HostPortTaken,
)
from podwire.pods.cni.ipam import delegate
from podwire.pods.cni.layouts import Bridged, PointToPoint, container_settings
from podwire.pods.cni.results import Interface, Ip, Result
from podwire.pods.network import AttachmentBroken, NetworkFull, PodNetwork, enter
from podwire.pods.wiring import Layout, Routed, Wires
from podwire.wire.rtnetlink import Link, Route
from podwire.wire.rtnetlink import delete as unlink

_KEPT_NETWORKS = 16
_BOTH = (ip_network("0.0.0.0/0"), ip_network("::/0"))
_SINCE = {"CHECK": "0.4.0", "STATUS": "1.1.0", "GC": "1.1.0"}


@dataclass(frozen=True)
class Call:
    """One call of a runtime. ``namespace`` is a descriptor of CNI_NETNS, which stays the caller's; None where the command needs none."""

    container: str
    interface: str
    path: str
    namespace: int | None
    configuration: Configuration
    environment: Mapping[str, str]
    body: bytes

    @functools.cached_property
    def port(self) -> str:
        """The name of the machine's end."""
        return wiring.port_of(owner_of(self.container, self.interface))

    def attachment(self, addresses: tuple[str, ...]) -> Attachment:
        """As it is recorded."""
        asked = self.configuration
        bridge = asked.bridge if asked.mode in {"routed", "bridge"} else ""
        published = bool(asked.port_mappings or asked.masquerade)
        return Attachment(self.container, self.interface, asked.mode, bridge, published, addresses)


class Plugin:
    """Keeps what does not change from call to call: the sockets, and which bridges it has seen to."""

    def __init__(self) -> None:
        self._networks: dict[Layout, PodNetwork] = {}
        self._read: dict[tuple[bytes, str], Configuration] = {}
        self._ledgers: dict[tuple[str, str, Ipam | None], Ledger] = {}

    def close(self) -> None:
        """Give up the sockets; what is attached stays."""
        for network in self._networks.values():
            network.close()
        self._networks.clear()

    def answer(self, environment: Mapping[str, str], body: bytes, namespace: int | None = None) -> tuple[int, bytes]:
        """A whole call: exit status and what goes to stdout. ``namespace``: of CNI_NETNS, where the caller has opened it."""
        version = LATEST
        command = environment.get("CNI_COMMAND", "")
        try:
            known = self._read.get((body, environment.get("CNI_ARGS", ""))) if command == "ADD" else None
            tree = None if known else _parsed(body)
            asked = known.version if known else tree.get("cniVersion") if isinstance(tree, dict) else None
            version = asked if isinstance(asked, str) and asked in VERSIONS else LATEST
            if command == "VERSION":
                return 0, _encoded({"cniVersion": version, "supportedVersions": list(VERSIONS)})
            with _opened(command, environment, namespace) as descriptor:
                found = self._carry_out(command, environment, known or tree, body, descriptor)
            return 0, b"" if found is None else _encoded(found)
        except CniError as error:
            return 1, _encoded(error.tree(version))
        except Exception as error:  # a fault of ours: a runtime must hear of it in the one form that it reads
            traceback.print_exc()
            return 1, _encoded(CniError(FAULT, f"{type(error).__name__}: {error}").tree(version))

    def _carry_out(self, command: str, environment: Mapping[str, str], tree: Any, body: bytes, namespace: int | None) -> Tree | None:
        verbs: dict[str, Callable[[Call], Tree | None]] = {
            "ADD": self.add,
            "DEL": self.delete,
            "CHECK": self.check,
            "GC": self.collect,
            "STATUS": self.status,
        }
        if command not in verbs:
            raise CniError(INVALID_ENVIRONMENT, f"CNI_COMMAND: expected one of {', '.join(verbs)}, VERSION, got {command!r}")
        # Most containers of a network come with the same words, and to read them takes a tenth of what an ADD takes.
        if isinstance(tree, Configuration):
            read = tree
        else:
            read = configuration.read(tree, _words(environment.get("CNI_ARGS", "")))
            if command == "ADD":
                self._read = {(body, environment.get("CNI_ARGS", "")): read}
        if read.version < _SINCE.get(command, ""):
            raise CniError(INCOMPATIBLE_VERSION, f"{command} is for cniVersion {_SINCE[command]} and later, not {read.version}")
        container, interface = environment.get("CNI_CONTAINERID", ""), environment.get("CNI_IFNAME", "")
        if command in {"ADD", "DEL", "CHECK"}:
            if not configuration.is_container_id(container):
                raise CniError(INVALID_ENVIRONMENT, f"CNI_CONTAINERID: expected letters, digits, '_', '.', '-', got {container!r}")
            if not configuration.is_link_name(interface):
                raise CniError(INVALID_ENVIRONMENT, f"CNI_IFNAME: expected the name of an interface, got {interface!r}")
        call = Call(container, interface, environment.get("CNI_NETNS", ""), namespace, read, environment, body)
        try:
            return verbs[command](call)
        except NamespaceGone as gone:
            raise CniError(INVALID_ENVIRONMENT, f"CNI_NETNS: {call.path} is no network namespace") from gone
        except AttachmentBroken as broken:
            raise CniError(NOT_AS_MADE, str(broken)) from broken
        except HostPortTaken as taken:
            raise CniError(HOST_PORT_TAKEN, str(taken)) from taken
        except KernelRefused as refused:
            raise CniError(KERNEL_REFUSED, str(refused)) from refused
        except OSError as error:
            raise CniError(IO_FAILURE, str(error)) from error

    # ADD -------------------------------------------------------------------------------------------------------------------

    def add(self, call: Call) -> Tree:
        """Attach the container. Nothing of it is left when it raises CniError, KernelRefused or OSError."""
        asked = call.configuration
        if asked.mode == "chained":
            return self._add_chained(call)
        assert call.namespace is not None
        assert asked.ipam is not None
        with contextlib.ExitStack() as undo, enter(call.namespace, _settings(asked)) as inside:
            if inside.has(call.interface):
                raise CniError(INVALID_ENVIRONMENT, f"CNI_IFNAME: the container has an interface {call.interface} already")
            answered = Result()
            if asked.ipam.delegate:
                undo.callback(_forgiving(lambda: self._delegate(call, "DEL")))
                answered = results.read(self._delegate(call, "ADD"))
                if not answered.ips:
                    raise CniError(INVALID_CONFIGURATION, f"ipam.type: the plugin {asked.ipam.delegate} gave no address")
            ledger = self._ledger(asked)
            with ledger.locked():
                if not asked.ipam.delegate:
                    answered = Result(ips=self._allocate(call.attachment(()), call, ledger), routes=asked.ipam.routes)
                made = call.attachment(_texts(answered))
                undo.callback(ledger.forget, made)
                if asked.ipam.delegate:
                    ledger.record(made)
                result = self._attach(call, inside, answered, undo)
                undo.pop_all()
        return _after(asked.previous, result).tree(asked.version)

    def _allocate(self, made: Attachment, call: Call, ledger: Ledger) -> tuple[Ip, ...]:
        wanted = call.configuration.wanted
        try:
            try:
                return ledger.allocate(made, wanted)
            except RangeExhausted:
                self._reap(ledger)
                return ledger.allocate(made, wanted)
        except RangeExhausted as full:
            raise CniError(TRY_AGAIN_LATER, str(full)) from full
        except AddressTaken as taken:
            raise CniError(ADDRESS_TAKEN, str(taken)) from taken

    def _attach(self, call: Call, inside: Network, answered: Result, undo: contextlib.ExitStack) -> Result:
        """Everything but the address, under the lock."""
        asked, namespace = call.configuration, call.namespace
        assert namespace is not None
        layout, pod = layout_of(asked, answered), wires_of(call, answered)
        network = self._network(layout)
        publication = effects.publication(asked, pod)
        requests = network.in_pod(pod)
        try:
            shown = network.attach_entered(pod, namespace, inside, requests)
        except NetworkFull as full:
            raise CniError(BRIDGE_FULL, str(full)) from full
        except KernelRefused as refused:
            if refused.errno != errno.ENODEV:
                raise
            network.set_up()  # somebody has deleted the bridge since
            shown = network.attach_entered(pod, namespace, inside, requests)
        undo.callback(network.remove, pod)
        if publication:
            undo.callback(effects.withdraw, call.port)
            effects.publish(publication, layout.bridge or pod.port)
        effects.limit(asked, namespace, pod.interface)
        outer = tuple(Interface(link.name, mac.hex(":"), mtu) for link in shown for mac, mtu in (link.mac_and_mtu(),))
        inner = Interface(pod.interface, pod.mac.hex(":"), outer[-1].mtu, call.path)
        ips = tuple(Ip(ip.address, ip.gateway, len(outer)) for ip in answered.ips)
        made = (request.value for request in requests if isinstance(request.value, Route))
        routes = tuple(configuration.Route(route.destination, route.gateway) for route in made if route.gateway is not None)
        return Result((*outer, inner), ips, routes, asked.dns or answered.dns)

    def _add_chained(self, call: Call) -> Tree:
        """No interface of our own: host ports and rates for that of the plugin before."""
        asked = call.configuration
        if asked.previous is None:
            raise CniError(INVALID_CONFIGURATION, "prevResult: mode chained comes after another plugin, and there is no result of one")
        assert call.namespace is not None
        result = results.read(asked.previous)
        interface, ips = result.sandboxed(call.interface)
        pod = Wires(call.port, b"", tuple(ip.address.ip for ip in ips), interface.name if interface else call.interface)
        publication = effects.publication(asked, pod)
        ledger = self._ledger(asked)
        made = call.attachment(tuple(str(ip.address.ip) for ip in ips))
        with contextlib.ExitStack() as undo, ledger.locked():
            undo.callback(ledger.forget, made)
            ledger.record(made)
            if publication:
                undo.callback(effects.withdraw, call.port)
                effects.publish(publication, effects.way_to(call.namespace, pod.interface))
            effects.limit(asked, call.namespace, pod.interface)
            undo.pop_all()
        return asked.previous | {"cniVersion": asked.version}

    # DEL, GC ---------------------------------------------------------------------------------------------------------------

    def delete(self, call: Call) -> None:
        """Take the attachment away, as much as is there."""
        asked = call.configuration
        ledger = self._ledger(asked)
        with ledger.locked():
            found = merged(ledger.find(call.container, call.interface))
            self._remove(found or call.attachment(()), ledger)
        if asked.ipam is not None and asked.ipam.delegate:
            self._delegate(call, "DEL")

    def _remove(self, attachment: Attachment, ledger: Ledger) -> None:
        """Packets first, the address last: until then it is nobody else's."""
        if attachment.published:
            effects.withdraw(attachment.port)
        if attachment.mode != "chained":
            addresses = tuple(map(ip_address, attachment.addresses))
            unrouted = Routed((), bridge=attachment.bridge).unrouted(addresses) if attachment.mode == "routed" else []
            with Network() as network:
                network.apply([*unrouted, unlink(Link(attachment.port), missing_ok=True)])
        ledger.forget(attachment)

    def collect(self, call: Call) -> None:
        """GC: take away every attachment but the valid ones. Goes on after an error, and raises the first at the end."""
        asked = call.configuration
        if asked.attachments is None:
            raise CniError(INVALID_CONFIGURATION, "cni.dev/valid-attachments: GC needs the list of what is to stay")
        failures: list[Exception] = []
        ledger = self._ledger(asked)
        with ledger.locked():
            for found in ledger.all():
                if (found.container, found.interface) in asked.attachments:
                    continue
                try:
                    self._remove(found, ledger)
                except OSError as error:
                    failures.append(error)
        if asked.ipam is not None and asked.ipam.delegate:
            try:
                self._delegate(call, "GC")
            except CniError as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def _reap(self, ledger: Ledger) -> None:
        """Release what belongs to containers that went without a DEL: their links went with them."""
        with Network() as network:
            ports = set(network.links())
        for found in ledger.all():
            if found.port not in ports and found.mode != "chained":
                self._remove(found, ledger)

    # CHECK, STATUS ---------------------------------------------------------------------------------------------------------

    def check(self, call: Call) -> None:
        """Compare the attachment with the result of its ADD. Raises CniError (102) for the first thing that is not as it was made."""
        asked = call.configuration
        if asked.previous is None:
            raise CniError(INVALID_CONFIGURATION, "prevResult: CHECK compares with the result of ADD, and there is none")
        assert call.namespace is not None
        result = results.read(asked.previous)
        interface, ips = result.sandboxed(call.interface)
        if interface is None:
            raise CniError(INVALID_CONFIGURATION, f"prevResult: there is no interface {call.interface} of the container")
        if asked.ipam is not None and asked.ipam.delegate:
            self._delegate(call, "CHECK")
        ledger = self._ledger(asked)
        pod = Wires(call.port, bytes.fromhex(interface.mac.replace(":", "")), tuple(ip.address.ip for ip in ips), call.interface)
        if asked.mode != "chained":
            ours = replace(result, ips=ips, routes=asked.ipam.routes if asked.ipam else ())
            found = merged(ledger.find(call.container, call.interface))
            for ip in ips:
                if found is None or str(ip.address.ip) not in found.addresses:
                    raise AttachmentBroken(f"the address {ip.address.ip} is not reserved for the container")
            with contextlib.closing(PodNetwork(layout=layout_of(asked, ours))) as network:
                network.verify(pod, call.namespace)
        with ledger.locked():
            effects.verify(asked, effects.publication(asked, pod), call.namespace, pod.interface)

    def status(self, call: Call) -> None:
        """STATUS: could an ADD be served? Raises CniError (50)."""
        asked = call.configuration
        if asked.ipam is None:
            return
        if asked.ipam.delegate:
            self._delegate(call, "STATUS")
            return
        ledger = self._ledger(asked)
        with ledger.locked():
            if ledger.full():
                self._reap(ledger)
            if full := ledger.full():
                raise CniError(UNAVAILABLE, f"no address left in {full}")

    # What the verbs share --------------------------------------------------------------------------------------------------

    def _ledger(self, asked: Configuration) -> Ledger:
        key = asked.data_dir, asked.name, asked.ipam
        found = self._ledgers.get(key)
        if found is None or not found.there():
            if len(self._ledgers) >= _KEPT_NETWORKS:
                self._ledgers.clear()
            found = self._ledgers[key] = Ledger(f"{asked.data_dir}/{asked.name}", asked.ipam)
        return found

    def _network(self, layout: Layout) -> PodNetwork:
        found = self._networks.get(layout)
        if found is None:
            if len(self._networks) >= _KEPT_NETWORKS:
                self.close()
            found = PodNetwork(layout=layout)
            try:
                found.set_up()
            except BaseException:
                found.close()
                raise
            self._networks[layout] = found
        return found

    def _delegate(self, call: Call, command: str) -> Tree:
        ipam = call.configuration.ipam
        assert ipam is not None
        return delegate(ipam.delegate, {**call.environment, "CNI_COMMAND": command}, call.body)


def layout_of(asked: Configuration, answered: Result) -> Layout:
    """How a container with these addresses is attached. Raises CniError for a mode that needs a gateway where there is none."""
    ranges = tuple(ip.address.network for ip in answered.ips)
    gateways = tuple(ip.gateway for ip in answered.ips)
    routes = tuple((route.destination, route.gateway) for route in answered.routes)
    settings = container_settings(ranges)
    if asked.mode == "bridge":
        return Bridged(ranges, gateways, asked.bridge, asked.mtu, asked.hairpin, asked.is_gateway, routes, settings)
    certain = tuple(gateway or network[1] for gateway, network in zip(gateways, ranges, strict=True))
    if asked.mode == "ptp":
        return PointToPoint(ranges, certain, asked.mtu, routes, settings)
    return Routed(ranges, certain, asked.bridge, asked.mtu, routes, settings)


def _settings(asked: Configuration) -> Mapping[str, str]:
    """What is written in the container's namespace. Which families another plugin will give is not known yet."""
    ranges = [one.subnet for ranges in asked.ipam.ranges for one in ranges] if asked.ipam and not asked.ipam.delegate else list(_BOTH)
    return container_settings(ranges)


def _texts(answered: Result) -> tuple[str, ...]:
    return tuple(str(ip.address.ip) for ip in answered.ips)


def wires_of(call: Call, answered: Result) -> Wires:
    """The names and addresses of both ends."""
    addresses = tuple(ip.address.ip for ip in answered.ips)
    return Wires(call.port, call.configuration.mac or wiring.mac_of(addresses[0]), addresses, call.interface)


def _after(previous: Tree | None, result: Result) -> Result:
    """Our result behind that of the plugin before in a chain."""
    if previous is None:
        return result
    before = results.read(previous)
    shift = len(before.interfaces)
    ips = tuple(replace(ip, interface=shift + ip.interface) if ip.interface is not None else ip for ip in result.ips)
    return Result((*before.interfaces, *result.interfaces), (*before.ips, *ips), (*before.routes, *result.routes), result.dns or before.dns)


@contextlib.contextmanager
def _opened(command: str, environment: Mapping[str, str], given: int | None) -> Iterator[int | None]:
    """The container's namespace, for the commands that cannot do without it."""
    if command not in {"ADD", "CHECK"}:
        yield given
        return
    path, opened = environment.get("CNI_NETNS", ""), None
    if given is None:
        if not path:
            raise CniError(INVALID_ENVIRONMENT, f"CNI_NETNS: {command} needs the path of a network namespace")
        try:
            given = opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise CniError(UNKNOWN_CONTAINER, f"CNI_NETNS: {path}: {error.strerror}") from error
    try:
        if namespaces.identity(given) == namespaces.identity():
            raise CniError(INVALID_ENVIRONMENT, f"CNI_NETNS: {path} is the network namespace that this plugin itself is in")
        yield given
    finally:
        if opened is not None:
            os.close(opened)


def _words(text: str) -> dict[str, str]:
    """CNI_ARGS: ``IP=10.4.0.7;MAC=...``. Raises CniError."""
    found = {}
    for pair in filter(None, text.split(";")):
        key, equals, value = pair.partition("=")
        if not equals:
            raise CniError(INVALID_ENVIRONMENT, f"CNI_ARGS: expected KEY=VALUE;..., got {pair!r}")
        found[key] = value
    return found


def _forgiving(action: Callable[[], object]) -> Callable[[], None]:
    """Undoing after an error, which is the one to tell."""

    def undo() -> None:
        with contextlib.suppress(CniError):
            action()

    return undo


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body) if body.strip() else {}
    except ValueError as error:
        raise CniError(DECODING_FAILURE, f"the configuration on stdin is no JSON: {error}") from error


def _encoded(tree: Tree) -> bytes:
    return json.dumps(tree).encode() + b"\n"
