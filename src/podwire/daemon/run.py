"""Run agents as one process: event loop, signals, logs, readiness, health, and an honest end.

How it ends: SIGTERM or SIGINT cancel the agents, which is a clean end (status 0); an agent that raises, or any task started
through the context, ends all of them with status 1, and the reason is the last line of the log and the STATUS that the
supervisor shows. An agent that returns has done its work: when all have, the process ends with status 0.

What must not be here: the choice of agents, restarts (the supervisor's).
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from podwire.client.api import Client
from podwire.client.kubeconfig import KubeconfigError
from podwire.daemon import config as config_module
from podwire.daemon import health, logs
from podwire.daemon.config import AgentConfig, ConfigError
from podwire.daemon.context import Context
from podwire.daemon.notify import Notifier
from podwire.daemon.watchdog import Watchdog

Agent = Callable[[Context], Awaitable[None]]
_GRACE_S = 5.0  # for agents to end after SIGTERM, and for the last Events to be sent


def run(
    agents: Sequence[tuple[str, Agent]],
    *,
    kubeconfig: str | None = None,
    node: str = "",
    config: AgentConfig | str | Path | None = None,
) -> int:
    """Run the agents until they end or a signal comes. Returns the exit status. Without ``kubeconfig``: the Pod's own credentials.

    ``config`` is a configuration, the path of one, or None for the defaults.
    """
    notifier = Notifier()
    log = logs.configure()
    try:
        settings = config if isinstance(config, AgentConfig) else config_module.load(config)
        log = logs.configure(settings.log_level, settings.log_format)
        node, kubeconfig = node or settings.node_name, kubeconfig or settings.kubeconfig
        client = Client.from_kubeconfig(kubeconfig) if kubeconfig else Client.in_cluster()
    except (ConfigError, KubeconfigError) as error:
        return _failed(log, notifier, str(error))
    import uvloop  # here, so that who only checks a configuration does not pay for it

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run_all(agents, client, settings, node, log, notifier))
    except BaseExceptionGroup as group:
        first = _first(group)
        log.debug("the whole failure", exc_info=group)
        return _failed(log, notifier, _words(first), first)
    except Exception as error:
        return _failed(log, notifier, _words(error), error)
    return 0


def _failed(log: logging.Logger, notifier: Notifier, reason: str, error: BaseException | None = None) -> int:
    if error is not None:
        log.error("traceback of the failure", exc_info=error)
    log.error("%s", reason)
    notifier.send(STATUS=reason, STOPPING="1")
    notifier.close()
    sys.stderr.flush()
    return 1


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Give the first failure in a group of groups."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _words(error: BaseException) -> str:
    part = getattr(error, "part", "")
    text = str(error) or type(error).__name__
    if not isinstance(error, (OSError, ValueError)):
        text = f"{type(error).__name__}: {text}"
    return f"{part}: {text}" if part else text


async def _run_all(
    agents: Sequence[tuple[str, Agent]], client: Client, config: AgentConfig, node: str, log: logging.Logger, notifier: Notifier
) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    watchdog = Watchdog(log.getChild("daemon"))

    def on_ready() -> None:
        # What the first sync made lives as long as the process: the collector need not look at it again and again. To collect
        # first would hold the loop for longer than what little garbage there is deserves.
        gc.freeze()
        notifier.send(READY="1", STATUS="ready")

    names = [name for name, _ in agents]
    notifier.send(STATUS=f"starting {', '.join(names)}")
    try:
        async with asyncio.TaskGroup() as tasks:
            context = Context(client, config, node=node, parts=names, tasks=tasks, on_ready=on_ready, log=log)
            context.start(watchdog.run(), "watchdog")
            if config.health_port:
                pages = await health.listen(config.health_port, context, watchdog)
                context.start(pages.serve_forever(), "health pages")
            running = {tasks.create_task(_named(name, agent, context), name=name) for name, agent in agents}
            await _until_the_end(running, stop)
            notifier.send(STOPPING="1", STATUS="ending")
            await _end(running, context)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        await client.close()
    log.info("ended" + (" by a signal" if stop.is_set() else ""))


async def _until_the_end(running: set[asyncio.Task[None]], stop: asyncio.Event) -> None:
    """Wait until all have returned or ``stop`` is set. A failure comes as a cancellation, from the task group around."""
    stopped = asyncio.create_task(stop.wait(), name="stop")
    try:
        while not stop.is_set() and not all(task.done() for task in running):
            await asyncio.wait({stopped, *(task for task in running if not task.done())}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
        await asyncio.wait([stopped])


async def _end(running: set[asyncio.Task[None]], context: Context) -> None:
    for task in running:
        task.cancel()
    _, late = await asyncio.wait(running, timeout=_GRACE_S)
    for task in late:
        context.log.warning("%s did not end in %.0f s", task.get_name(), _GRACE_S)
    try:
        async with asyncio.timeout(_GRACE_S):
            await context.flush_events()
    except TimeoutError:
        context.log.warning("some Events were not sent before the end")
    context.cancel_all()


async def _named(name: str, agent: Agent, context: Context) -> None:
    try:
        await agent(context)
    except Exception as error:
        error.part = name  # type: ignore[attr-defined]  # so that the last line says whose error it was
        raise
