"""All controllers of workloads, started together.

The order is of no matter to correctness, each works from what the API says; it is that in which a first Pod needs them.
"""

from __future__ import annotations

import asyncio

from podwire.daemon.context import Context
from podwire.workloads.accounts.controller import Accounts
from podwire.workloads.autoscaling.controller import Autoscalers
from podwire.workloads.certificates.controller import Certificates
from podwire.workloads.cronjobs.controller import CronJobs
from podwire.workloads.daemonsets.controller import DaemonSets
from podwire.workloads.deployments.controller import Deployments
from podwire.workloads.disruption.controller import DisruptionBudgets
from podwire.workloads.endpoints.controller import EndpointControllers
from podwire.workloads.garbage.controller import Garbage
from podwire.workloads.jobs.controller import Jobs
from podwire.workloads.mirroring.controller import Mirroring
from podwire.workloads.namespaces.controller import Namespaces
from podwire.workloads.nodes.controller import Nodes
from podwire.workloads.replicasets.controller import ReplicaSets, ReplicationControllers
from podwire.workloads.scheduler.controller import Scheduler
from podwire.workloads.statefulsets.controller import StatefulSets
from podwire.workloads.storage.controller import Storage

CONTROLLERS = (
    Accounts,
    Deployments,
    ReplicaSets,
    ReplicationControllers,
    DaemonSets,
    StatefulSets,
    Jobs,
    CronJobs,
    Storage,
    Scheduler,
    EndpointControllers,
    Mirroring,
    DisruptionBudgets,
    Autoscalers,
    Certificates,
    Nodes,
    Namespaces,
    Garbage,
)


async def run(context: Context) -> None:
    """Run the controllers until cancelled; ready when all have read what there is."""
    controllers = [make(context) for make in CONTROLLERS]
    await asyncio.gather(*(controller.start() for controller in controllers))
    context.ready("workloads")
    await asyncio.Event().wait()
