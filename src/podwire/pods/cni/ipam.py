"""Addresses for containers: leases of our own on disk, or another plugin's.

A lease is a line of ``address_log``, which says why none is given twice. Another plugin is found in CNI_PATH and called as the
specification says: our whole configuration, our environment.

Source: https://www.cni.dev/docs/spec/#section-4-plugin-delegation
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from ipaddress import ip_interface
from pathlib import Path

from podwire.pods.address_log import AddressLog
from podwire.pods.addresses import Addresses, AddressTaken, RangeExhausted
from podwire.pods.cni.configuration import AddressRange, Ipam, IPInterface, Tree
from podwire.pods.cni.errors import DECODING_FAILURE, INVALID_CONFIGURATION, IO_FAILURE, CniError
from podwire.pods.cni.results import Ip

_DELEGATE_LIMIT_S = 120.0


class Leases:
    """The leases of one network."""

    def __init__(self, folder: str, ipam: Ipam | None) -> None:
        self._folder = folder
        self._sets = tuple(tuple((one, _addresses(folder, one)) for one in ranges) for ranges in ipam.ranges) if ipam else ()
        self._logs = {_name(one): addresses.log for ranges in self._sets for one, addresses in ranges}

    def allocate(self, owner: str, wanted: Sequence[IPInterface]) -> tuple[Ip, ...]:
        """Give an address of each list of ranges, the wanted ones where they are in it. All or none.

        Raises:
            RangeExhausted.
            AddressTaken: a wanted one is another's, or in none of the ranges.
        """
        asked = list(wanted)
        found: list[Ip] = []
        try:
            for ranges in self._sets:
                mine = next((one for one in asked if any(addresses.holds(one.ip) for _, addresses in ranges)), None)
                if mine is not None:
                    asked.remove(mine)
                found.append(_allocate(owner, ranges, mine))
            if asked:
                raise AddressTaken(f"{asked[0].ip} is none of the addresses that may be given")
        except (RangeExhausted, AddressTaken):
            self.release(owner, [str(ip.address.ip) for ip in found])
            raise
        return tuple(found)

    def release(self, owner: str, addresses: Sequence[str]) -> None:
        """Take back these addresses of an owner; also of ranges that the configuration no longer names."""
        for log in self._all_logs():
            with log.locked():
                for address in addresses:
                    if log.owners.get(address) == owner:
                        log.take_back(address)

    def owners(self) -> dict[str, list[str]]:
        """Each owner's addresses."""
        found: dict[str, list[str]] = {}
        for log in self._all_logs():
            with log.locked():
                for address, owner in log.owners.items():
                    found.setdefault(owner, []).append(address)
        return found

    def full(self) -> str:
        """The first list of ranges that has no address left, in words; "" if there is none."""
        for ranges in self._sets:
            if not any(addresses.has_room() for _, addresses in ranges):
                return ", ".join(str(one.subnet) for one, _ in ranges)
        return ""

    def _all_logs(self) -> list[AddressLog]:
        """Also those of ranges that the configuration no longer names."""
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return []
        for name in names:
            if name not in self._logs:
                self._logs[name] = AddressLog(f"{self._folder}/{name}")
        return [self._logs[name] for name in names]


def _name(one: AddressRange) -> str:
    return str(one.subnet).replace("/", "_")


def _addresses(folder: str, one: AddressRange) -> Addresses:
    try:
        return Addresses(Path(folder, _name(one)), one.subnet, first=one.first, last=one.last, gateway=one.gateway)
    except ValueError as error:
        raise CniError(INVALID_CONFIGURATION, f"ipam.ranges: {error}") from error


def _allocate(owner: str, ranges: Sequence[tuple[AddressRange, Addresses]], wanted: IPInterface | None) -> Ip:
    full: list[str] = []
    for one, addresses in ranges:
        if wanted is not None and not addresses.holds(wanted.ip):
            continue
        try:
            address = addresses.allocate(owner, None if wanted is None else wanted.ip)
        except RangeExhausted as exhausted:
            full.append(str(exhausted))
            continue
        return Ip(ip_interface((address, one.subnet.prefixlen)), one.gateway)
    raise RangeExhausted("; ".join(full))


def delegate(name: str, environment: Mapping[str, str], body: bytes) -> Tree:
    """Call another plugin; gives its result, {} where it has none. Raises CniError: its own, or that it cannot be called."""
    import subprocess  # dear, and most networks need none

    path = next((found for folder in environment.get("CNI_PATH", "").split(":") if os.access(found := f"{folder}/{name}", os.X_OK)), None)
    if path is None:
        raise CniError(INVALID_CONFIGURATION, f"ipam.type: there is no plugin {name!r} in CNI_PATH ({environment.get('CNI_PATH', '')})")
    try:
        ran = subprocess.run([path], input=body, capture_output=True, env=dict(environment), timeout=_DELEGATE_LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CniError(IO_FAILURE, f"the plugin {name} could not be called", str(error)) from error
    try:
        tree = json.loads(ran.stdout) if ran.stdout.strip() else {}
    except ValueError:
        tree = None
    if not isinstance(tree, dict):
        raise CniError(DECODING_FAILURE, f"the plugin {name} answered with no JSON object", ran.stdout[:200].decode(errors="replace"))
    if ran.returncode:
        words = str(tree.get("msg") or ran.stderr.decode(errors="replace").strip() or f"ended with status {ran.returncode}")
        raise CniError(int(tree.get("code") or IO_FAILURE), f"{name}: {words}", str(tree.get("details") or ""))
    return tree
