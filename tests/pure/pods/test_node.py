"""What a node says of its disk."""

from __future__ import annotations

from podwire.daemon.config import AgentConfig
from podwire.pods.node import Disk, Tree, node_status

FACTS = {"cpu": "2", "memory": "1Ki", "ephemeral-storage": "1Ki", "info": {}}


def conditions(disk: Disk) -> dict[str, Tree]:
    told = node_status("n", AgentConfig(), FACTS, "now", "begin", disk)["conditions"]
    assert [one["type"] for one in told] == ["NetworkUnavailable", "MemoryPressure", "DiskPressure", "PIDPressure", "Ready"]
    return {one["type"]: one for one in told}


def test_a_full_disk_is_a_pressure_and_the_node_is_ready_still() -> None:
    empty = Disk().seen(False, "t1")
    assert empty.seen(False, "t2") == empty
    full = empty.seen(True, "t3")
    assert full.seen(True, "t4") == full == Disk(True, "t3")
    before, after = conditions(empty), conditions(full)
    assert before["DiskPressure"] == {
        "type": "DiskPressure",
        "status": "False",
        "reason": "KubeletHasNoDiskPressure",
        "message": "kubelet has no disk pressure",
        "lastHeartbeatTime": "now",
        "lastTransitionTime": "t1",
    }
    told = after["DiskPressure"]
    assert (told["status"], told["reason"], told["message"], told["lastTransitionTime"]) == (
        "True",
        "KubeletHasDiskPressure",
        "kubelet has disk pressure",
        "t3",
    )
    assert {kind: one for kind, one in before.items() if kind != "DiskPressure"} == {
        kind: one for kind, one in after.items() if kind != "DiskPressure"
    }
    assert (after["Ready"]["status"], after["Ready"]["lastTransitionTime"]) == ("True", "begin")
    assert [one.event for one in (full, full.seen(False, "t5"))] == ["NodeHasDiskPressure", "NodeHasNoDiskPressure"]
