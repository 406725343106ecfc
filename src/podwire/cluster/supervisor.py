"""The warm parent of the lab's processes, and the one who answers for the lab.

It imports what its children need, builds the network (or takes over what is there), forks each process into its place, keeps
it running, and answers on the control socket. It has one thread and no event loop of a library. Everything that must outlive
it is held by init: namespaces, listening sockets, the control socket. Killed at any moment, it is started again by init
and goes on where it was.

What must not be here: what runs where (plan.py), how a process is born (offspring.py), what a status is (reports.py).
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import signal
import socket
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from podwire.cluster import offspring, packets, places, reports, state, wheres
from podwire.cluster.control import Caller, Control, Refused
from podwire.cluster.executions import Executions
from podwire.cluster.first_processes import FirstProcesses
from podwire.cluster.loop import Loop
from podwire.cluster.packets import Message
from podwire.cluster.paths import Paths
from podwire.cluster.plan import Plan, plan
from podwire.cluster.processes import Processes
from podwire.cluster.spec import parse
from podwire.cluster.switching import Switching
from podwire.linux import disk, init, syscalls

BUILT = "built"
PUBLISHED = "published/"


class Supervisor:
    def __init__(self, paths: Paths, call: offspring.Call) -> None:
        self._paths = paths
        self._loop = Loop()
        kept = state.read(paths)
        spec = parse(json.dumps(kept.spec))
        first_plan = plan(spec, paths, api_port=kept.api_port, changes=state.read_changes(paths))
        self._name, self._api_server = kept.name, f"https://127.0.0.1:{kept.api_port}"
        self._networks: dict[str, int] = {}
        self._first = FirstProcesses(self._loop, paths, self._rebooted)
        self._held = self._first.cluster.give("")
        self._switching = Switching(
            paths, first_plan, self._held, self._networks, lambda value: plan(spec, paths, api_port=kept.api_port, changes=value)
        )
        self._reported: dict[str, Any] = self._read_reports()
        self._waiting: set[Caller] = set()
        self._pushing = False
        self._door = socket.socket(fileno=self._held["door"])
        self._asked: dict[int, tuple[Caller, str]] = {}
        self._call = call
        # How often it was started before, only init knows.
        restarts, error = int(os.environ.pop(init.RESTARTS, "0")), os.environ.pop(init.LAST_ERROR, "")
        self._own = {"name": "supervisor", "pid": os.getpid(), "state": "ready", "restarts": restarts, "lastError": error}

    def _rebooted(self, node: str) -> int:
        return self._switching.rebooted(node)

    @property
    def _plan(self) -> Plan:
        """As it is now: nodes come and go."""
        return self._switching.plan

    def run(self, warm: Iterator[str]) -> None:
        """Take over or build, then serve for ever.

        ``warm`` imports what the children will need, and yields after each part the word of the command that may start then:
        the API's process, for which all others wait, begins while the rest is imported.
        """
        try:
            self._prepare()
        except Exception as failure:  # whatever it is: somebody waits to be told
            traceback.print_exc()
            self._explain(failure)
            return
        self._control = Control(self._loop, socket.socket(fileno=self._held["control"]), self._words())
        self._import_next(warm)
        self._loop.run()

    def _explain(self, failure: Exception) -> None:
        """Answer everybody with what went wrong: this cluster will not be, and `up` takes it back."""

        def refuse(*_: object) -> Message:
            raise Refused(f"the lab cannot be built: {failure or type(failure).__name__}")

        words = dict.fromkeys(("status", "wait", "start", "exec", "open"), refuse)
        self._control = Control(self._loop, socket.socket(fileno=self._held["control"]), words)
        self._loop.run()

    def _prepare(self) -> None:
        """Take over or build everything that processes stand on."""
        networks = self._networks
        networks.update(self._places())
        self._first.start_nodes({node: networks[f"node/{node}"] for node in self._plan.running})
        notify = self._notify_socket()
        grounds = offspring.Grounds(
            networks=networks,
            pid_namespaces=self._first.pid_namespaces,
            listeners=self._listeners(networks),
            notify=f"{self._paths.run}/notify",
            exit_status=self._first.orphan_status,
            call=self._call,
        )
        self._processes = Processes(self._loop, self._paths, self._plan.processes, notify, grounds, self._changed)
        self._executions = Executions(self._loop, self._paths, lambda: [node.name for node in self._plan.nodes], self._first)
        self._loop.on_readable(self._door.fileno(), self._hear_door)
        self._processes.adopt()
        self._switching.begin(self._first, self._processes)
        for node, running in self._first.running("exec/").items():
            self._executions.adopt(node, running)

    def _import_next(self, warm: Iterator[str]) -> None:
        """Import one part, let start what needs no more, and see to everybody else before the next."""
        word = next(warm, None)
        if word is not None:
            gc.freeze()  # what is imported stays, and a child's collector need not write to its memory
            self._processes.warmed(word)
            self._loop.after(0, lambda: self._import_next(warm))

    # What there is to stand on

    def _places(self) -> dict[str, int]:
        """Give the network namespaces of all places: those that are held, and new ones where there are none, or they were not finished."""
        wanted = [place.name for place in self._plan.places]
        whole = BUILT in self._held
        for name in [name for name in self._held if name.startswith("place/")]:
            if not whole or name.removeprefix("place/") not in wanted:
                self._first.cluster.release(name)
                os.close(self._held.pop(name))
        there = {name.removeprefix("place/"): fd for name, fd in self._held.items() if name.startswith("place/")}
        made = places.extend(self._plan, there, [name for name in wanted if name not in there])
        for name, descriptor in made.items():
            self._first.cluster.hold(f"place/{name}", descriptor)
            self._held[f"place/{name}"] = descriptor
        if not whole:
            with open(os.devnull, "rb") as mark:
                self._first.cluster.hold(BUILT, mark.fileno())
        return {**there, **made}

    def _listeners(self, networks: dict[str, int]) -> dict[str, int]:
        found: dict[str, int] = {}
        for listen in (listen for process in self._plan.processes for listen in process.listen):
            name = f"listen/{listen.name}"
            if name not in self._held:
                made = offspring.listen_inside(networks[listen.place], listen.address, listen.port)
                self._first.cluster.hold(name, made.fileno())
                self._held[name] = made.detach()
            found[listen.name] = self._held[name]
        return found

    def _notify_socket(self) -> socket.socket:
        if "notify" in self._held:
            return socket.socket(fileno=self._held["notify"])
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        path = f"{self._paths.run}/notify"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        made.bind(path)
        self._first.cluster.hold("notify", made.fileno())
        return made

    # Words of the control socket

    def _words(self) -> dict[str, Callable[[Message, tuple[int, ...], Caller], Message | None]]:
        return {
            "status": lambda *_: self.status(),
            "wait": self._wait,
            "start": self._start,
            "report": self._report,
            "listen": self._listen,
            "connect": self._connect,
            "unlisten": self._unlisten,
            "exec": self._executions.start,
            "attach": self._executions.attach,
            "open": self._open,
            "nodes": self._switching.change,
            "reboot": self._switching.restart,
        }

    def status(self) -> Message:
        awaited = self._awaited()
        degraded = len(awaited) < len(self._plan.nodes)
        full = self._paths.root if disk.is_full(self._paths.root) else ""
        told = reports.status(
            self._name, self._api_server, self._processes.records(), awaited, self._reported, degraded=degraded, full=full
        )
        return {**told, "supervisor": self._own}

    def _awaited(self) -> list[str]:
        """The nodes that can be ready."""
        zones = self._plan.changes.stopped_zones
        return [name for name in self._plan.running if self._plan.node(name).zone not in zones]

    def _start(self, *_: object) -> Message:
        if not self._processes.started:
            self._processes.start()
        return self.status()

    def _wait(self, _message: Message, _descriptors: tuple[int, ...], caller: Caller) -> Message:
        self._waiting.add(caller)
        caller.on_gone.append(lambda: self._waiting.discard(caller))
        return self.status()

    def _report(self, message: Message, *_: object) -> Message:
        self._reported = reports.merge(self._reported, message)
        with open(f"{self._paths.run}/reports.json", "w", encoding="utf-8") as stream:
            json.dump(self._reported, stream)
        self._changed()
        return {}

    def _open(self, message: Message, _descriptors: tuple[int, ...], caller: Caller) -> None:
        """Give a descriptor of a place's network namespace."""
        try:
            descriptor = self._executions.network(str(message["where"]))
        except wheres.Unknown as unknown:
            raise Refused(str(unknown)) from None
        caller.tell({}, [descriptor])
        os.close(descriptor)

    def _changed(self) -> None:
        """Tell all who wait, once for all changes of this round."""
        if not self._pushing:
            self._pushing = True
            self._loop.after(0, self._push)

    def _push(self) -> None:
        self._pushing = False
        if self._waiting:
            status = self.status()
            for caller in list(self._waiting):
                caller.tell(status)

    def _read_reports(self) -> dict[str, Any]:
        try:
            with open(f"{self._paths.run}/reports.json", encoding="utf-8") as stream:
                found: dict[str, Any] = json.load(stream)
                return found
        except (FileNotFoundError, ValueError):
            return {}

    # Sockets of the machine, through door

    def _listen(self, message: Message, _descriptors: tuple[int, ...], caller: Caller) -> Message | None:
        name = PUBLISHED + str(message["name"])
        if name in self._held:
            with socket.socket(fileno=os.dup(self._held[name])) as made:
                caller.tell({"port": made.getsockname()[1]}, [made.fileno()])
            return None
        self._ask_door(caller, name, {"port": int(message["port"]), "protocol": str(message.get("protocol", "tcp")).lower()})
        return None

    def _connect(self, message: Message, _descriptors: tuple[int, ...], caller: Caller) -> None:
        """A connection to a registry of the machine's loopback: door knows to which there may be one."""
        self._ask_door(caller, "", {"registry": str(message["registry"])})

    def _ask_door(self, caller: Caller, name: str, wanted: Message) -> None:
        number = max(self._asked, default=0) + 1
        self._asked[number] = (caller, name)
        try:
            packets.send(self._door, {"id": number, **wanted})
        except packets.Closed:
            raise Refused("the process that opens ports on the machine has gone") from None

    def _unlisten(self, message: Message, *_: object) -> Message:
        name = PUBLISHED + str(message["name"])
        if name in self._held:
            self._first.cluster.release(name)
            os.close(self._held.pop(name))
        return {}

    def _hear_door(self) -> None:
        try:
            message, descriptors = packets.receive(self._door)
        except packets.Closed:  # the end of door is the end of init, and so of this process
            self._loop.forget(self._door.fileno())
            return
        caller, name = self._asked.pop(message["id"], (None, ""))
        if "error" in message or caller is None:
            for descriptor in descriptors:
                os.close(descriptor)
            if caller:
                caller.tell({"error": message["error"]})
            return
        caller.tell({"port": message["port"]}, descriptors[:1])
        if name:
            self._first.cluster.hold(name, descriptors[0])
            self._held[name] = descriptors[0]
        else:
            os.close(descriptors[0])


def run(root: str, call: offspring.Call, warm: Iterator[str]) -> None:
    """Be the supervisor of the cluster whose state directory is ``root``.

    ``call`` runs a command line, ``warm`` imports what command lines need, one after the other.
    """
    syscalls.set_title("podwire supervisor")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # some five descriptors a node
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends with init, or by SIGKILL and comes back
    Supervisor(Paths(root), call).run(warm)
