"""Results, in the shape of each version of the specification. Pure; the standard library alone.

Before 1.0.0 an address also said its family (``version``); ``mtu`` of an interface came with 1.1.0.

Source: https://www.cni.dev/docs/spec/#success, https://www.cni.dev/docs/spec-upgrades/
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from podwire.pods.cni.configuration import IPAddress, IPInterface, Route, Tree
from podwire.pods.cni.errors import DECODING_FAILURE, CniError


@dataclass(frozen=True)
class Interface:
    """``sandbox`` "": on the machine itself."""

    name: str
    mac: str = ""
    mtu: int = 0
    sandbox: str = ""

    def tree(self, version: str) -> Tree:
        """As a version has it."""
        tree: Tree = {"name": self.name, "mac": self.mac}
        if self.mtu and version >= "1.1.0":
            tree["mtu"] = self.mtu
        return tree | ({"sandbox": self.sandbox} if self.sandbox else {})


@dataclass(frozen=True)
class Ip:
    """``interface`` is a place in the list of interfaces, or None where it is not known yet (an IPAM plugin's answer)."""

    address: IPInterface
    gateway: IPAddress | None = None
    interface: int | None = None

    def tree(self, version: str) -> Tree:
        """As a version has it."""
        tree: Tree = {"version": str(self.address.version)} if version < "1.0.0" else {}
        tree["address"] = str(self.address)
        if self.gateway is not None:
            tree["gateway"] = str(self.gateway)
        return tree if self.interface is None else tree | {"interface": self.interface}


@dataclass(frozen=True)
class Result:
    interfaces: tuple[Interface, ...] = ()
    ips: tuple[Ip, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: Tree = field(default_factory=dict)

    def tree(self, version: str) -> Tree:
        """The success object."""
        tree: Tree = {"cniVersion": version, "interfaces": [one.tree(version) for one in self.interfaces]}
        tree["ips"] = [one.tree(version) for one in self.ips]
        tree["routes"] = [{"dst": str(one.destination)} | ({"gw": str(one.gateway)} if one.gateway else {}) for one in self.routes]
        return tree | {"dns": self.dns}

    def sandboxed(self, interface: str) -> tuple[Interface | None, tuple[Ip, ...]]:
        """The container's interface of this name, and its addresses."""
        for number, one in enumerate(self.interfaces):
            if one.name == interface and one.sandbox:
                return one, tuple(ip for ip in self.ips if ip.interface in {None, number})
        return None, self.ips


def read(tree: Any) -> Result:
    """Read a result of any version that is supported. Raises CniError."""
    try:
        return Result(
            tuple(
                Interface(one["name"], one.get("mac", ""), one.get("mtu", 0), one.get("sandbox", "")) for one in _list(tree, "interfaces")
            ),
            tuple(
                Ip(ip_interface(one["address"]), ip_address(one["gateway"]) if one.get("gateway") else None, one.get("interface"))
                for one in _list(tree, "ips")
            ),
            tuple(
                Route(ip_network(one["dst"], strict=False), ip_address(one["gw"]) if one.get("gw") else None)
                for one in _list(tree, "routes")
            ),
            dict(tree.get("dns") or {}),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CniError(DECODING_FAILURE, f"a result of another plugin is not as the specification has it: {error!r}") from error


def _list(tree: Tree, name: str) -> Sequence[Tree]:
    return tree.get(name) or []
