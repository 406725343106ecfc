"""What every long-running process has: configuration, logs, signals, readiness, health pages, a watchdog of its event loop.

What belongs here: the frame that agents run in. What must not: any agent. An agent is ``async def run(context: Context) ->
None``, which returns or is cancelled to end, and raises to end the whole process with status 1.
"""
