"""The life of containers on a node of its own: hooks, endings and what they say, deadlines, refusals. Programs are real."""

from __future__ import annotations

import time

from kernel.pods.running import NODE, Tree, condition, eventually, running_node


def machine(script: str, name: str = "main", **more: object) -> Tree:
    return {"name": name, "image": "podwire.dev/machine", "command": ["sh", "-c", script], **more}


def terminated(status: Tree, container: int = 0) -> Tree:
    found: Tree = status["containerStatuses"][container]["state"]["terminated"]
    return found


def test_what_a_container_says_about_its_end() -> None:
    with running_node() as node:
        node.service_account()
        fallback = {"terminationMessagePolicy": "FallbackToLogsOnError"}
        node.pod("said", machine("echo the disk is full > /dev/termination-log; exit 3"), restartPolicy="Never")
        node.pod("path", machine("echo elsewhere > /tmp/why; exit 4", terminationMessagePath="/tmp/why"), restartPolicy="Never")
        node.pod("logs", machine("echo last words; exit 5", **fallback), restartPolicy="Never")
        node.pod("good", machine("echo nothing to say", **fallback), restartPolicy="Never")
        node.pod("none", machine("", command=["/no/such/program"]), restartPolicy="Never")
        expected = {"said": (3, "the disk is full\n"), "path": (4, "elsewhere\n"), "logs": (5, "last words\n")}
        for name, (code, message) in expected.items():
            status = node.wait(name, lambda status: status.get("phase") == "Failed")["status"]
            assert (terminated(status)["exitCode"], terminated(status)["message"]) == (code, message)
            assert condition(status, "Ready") == "False"
        status = node.wait("good", lambda status: status.get("phase") == "Succeeded")["status"]
        assert "message" not in terminated(status)
        status = node.wait("none", lambda status: status.get("phase") == "Failed")["status"]
        assert (terminated(status)["exitCode"], terminated(status)["reason"]) == (128, "StartError")
        assert "/no/such/program" in terminated(status)["message"]


def test_hooks_and_grace() -> None:
    serve = "import http.server; http.server.HTTPServer(('', 8080), http.server.SimpleHTTPRequestHandler).serve_forever()"
    with running_node() as node:
        node.service_account()
        post = {"postStart": {"exec": {"command": ["sh", "-c", "touch /tmp/began || exit 1"]}}}
        node.pod("hooked", machine("sleep 1000", lifecycle=post))
        node.pod(
            "failing", machine("sleep 1000", lifecycle={"postStart": {"exec": {"command": ["false"]}}}), terminationGracePeriodSeconds=0
        )
        finalizer = {"finalizers": ["podwire.dev/kept"]}
        stop = {"preStop": {"httpGet": {"path": "/", "port": 8080}}}
        script = f"trap 'echo $hooked; exit 7' TERM; python3 -c \"{serve}\" 2>/dev/termination-log & while :; do sleep 0.1; done"
        probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
        node.create(
            "/api/v1/namespaces/default/pods",
            {
                "metadata": {"name": "kept", **finalizer},
                "spec": {"nodeName": "node-1", "containers": [machine(script, lifecycle=stop, readinessProbe=probe)]},
            },
        )
        assert node.ready("hooked")["status"]["containerStatuses"][0]["restartCount"] == 0
        node.wait("failing", lambda status: "CrashLoopBackOff" in str(status), "the hook fails")
        eventually(lambda: {"FailedPostStartHook: PostStartHook failed", "Killing: FailedPostStartHook"} <= set(node.events("failing")))
        node.ready("kept")
        node.delete("kept")
        status = node.wait("kept", lambda status: status.get("phase") == "Failed")["status"]
        assert terminated(status)["exitCode"] == 7
        assert '"GET / HTTP/1.1" 200' in terminated(status)["message"]  # the hook was a request from the node
        eventually(lambda: "Killing: Stopping container main" in node.events("kept"))
        assert condition(status, "Ready") == "False"


def test_containers_may_see_each_others_processes() -> None:
    look = "until grep -qa 'sleep.1234' /proc/[0-9]*/cmdline; do sleep 0.05; done; (sleep 0 &); echo $$$$ > /dev/termination-log"
    with running_node() as node:
        node.service_account()
        other = machine("exec sleep 1234", "other")
        node.pod("shared", machine(look), other, restartPolicy="Never", shareProcessNamespace=True, terminationGracePeriodSeconds=5)
        status = node.wait("shared", lambda status: "terminated" in str(status.get("containerStatuses", ())[:1]))["status"]
        assert not [event for event in node.events("shared") if event.startswith("Failed")]
        assert int(terminated(status)["message"]) > 1  # nobody's container is the first process
        node.kill("agent")
        node.start_agent()
        assert node.get("shared")["status"]["containerStatuses"][1]["restartCount"] == 0
        began = time.monotonic()
        node.delete("shared")
        node.gone("shared")
        print("gone after", time.monotonic() - began)
        # The first process that they share is nobody's, and shows nothing of the machine.
        look = "{ ls -A /proc/1/root/etc /proc/1/root/home /proc/1/root/root; ls -d /proc/1/root/usr; } > /dev/termination-log 2>&1"
        node.pod("nosy", machine(look), restartPolicy="Never", shareProcessNamespace=True)
        status = node.wait("nosy", lambda status: status.get("phase") == "Succeeded")["status"]
        assert terminated(status)["message"].split() == [
            "/proc/1/root/etc:",
            "/proc/1/root/home:",
            "/proc/1/root/root:",
            "/proc/1/root/usr",
        ]
        node.pod("apart", machine("echo $$$$ > /dev/termination-log"), restartPolicy="Never")
        status = node.wait("apart", lambda status: status.get("phase") == "Succeeded")["status"]
        assert terminated(status)["message"] == "1\n"


def test_deadlines_and_refusals() -> None:
    with running_node() as node:
        node.service_account()
        node.pod("slow", machine("trap 'exit 9' TERM; while :; do sleep 0.1; done"), activeDeadlineSeconds=600)
        node.pod("stood", {"name": "server", "image": "nginx"}, activeDeadlineSeconds=1)
        forbidden = {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}
        node.pod("forbidden", {"name": "server", "image": "nginx"}, securityContext=forbidden)
        node.pod("user", machine("id", securityContext={"runAsUser": 1000}))
        node.pod("image", {"name": "server", "image": "nginx:1"})
        node.ready("slow")
        sooner = {"spec": {"activeDeadlineSeconds": 1}}
        node.call("PATCH", "/api/v1/namespaces/default/pods/slow", sooner, "application/merge-patch+json")
        for name in ("slow", "stood"):
            status = node.wait(name, lambda status: status.get("phase") == "Failed")["status"]
            assert (status["reason"], status["message"]) == (
                "DeadlineExceeded",
                "Pod was active on the node longer than the specified deadline",
            )
        assert terminated(node.get("slow")["status"])["exitCode"] == 9
        status = node.wait("forbidden", lambda status: status.get("phase") == "Failed")["status"]
        assert status["reason"] == "SysctlForbidden"
        assert status["message"] == 'Pod was rejected: forbidden sysctl: "kernel.msgmax" not allowlisted'
        status = node.wait("user", lambda status: "CreateContainerConfigError" in str(status))["status"]
        assert "runAsUser 1000 cannot be had" in status["containerStatuses"][0]["state"]["waiting"]["message"]
        pod = node.ready("image")
        assert pod["status"]["observedGeneration"] == pod["metadata"]["generation"] == 1
        patch = {"spec": {"containers": [{"name": "server", "image": "nginx:2"}]}}
        node.call("PATCH", "/api/v1/namespaces/default/pods/image", patch, "application/strategic-merge-patch+json")
        status = node.wait("image", lambda status: status["containerStatuses"][0]["restartCount"] == 1)["status"]
        assert status["containerStatuses"][0]["image"] == "nginx:2"
        assert status["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 0
        assert status["observedGeneration"] == 2
        eventually(lambda: "Killing: Container server definition changed, will be restarted" in node.events("image"))


def test_a_node_does_not_take_what_does_not_fit() -> None:
    with running_node() as node:
        node.service_account()
        cpus = int(node.call("GET", "/api/v1/nodes/node-1")["status"]["allocatable"]["cpu"])
        most = {"resources": {"requests": {"cpu": str(cpus)}}}
        port = {"ports": [{"containerPort": 80, "hostPort": 18080}]}
        node.pod("first", {"name": "server", "image": "nginx", **most, **port})
        node.ready("first")
        node.pod("full", {"name": "server", "image": "nginx", **most})
        node.pod("elsewhere", {"name": "server", "image": "nginx"}, nodeSelector={"disk": "ssd"})
        node.pod("port", {"name": "server", "image": "nginx", **port})
        words = {
            "full": ("OutOfcpu", f"Node didn't have enough resource: cpu, requested: {cpus}000, used: {cpus}000, capacity: {cpus}000"),
            "elsewhere": ("NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"),
            "port": ("NodePorts", "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"),
        }
        for name, (reason, message) in words.items():
            status = node.wait(name, lambda status: status.get("phase") == "Failed")["status"]
            assert (status["reason"], status["message"]) == (reason, f"Pod was rejected: {message}")
            assert "containerStatuses" not in status
            table = "application/json;as=Table;v=v1;g=meta.k8s.io"
            [row] = node.call("GET", f"/api/v1/namespaces/default/pods/{name}", accept=table)["rows"]
            assert row["cells"][1:3] == ["0/1", reason], "as kubectl shows it"
            eventually(lambda name=name, reason=reason, message=message: f"{reason}: {message}" in node.events(name))  # type: ignore[misc]
        # Who has been taken stays, whatever the node looks like when its agent comes back, and who was rejected is not begun.
        node.kill("agent")
        node.start_agent()
        node.delete("full")
        node.gone("full")
        assert node.get("first")["status"]["phase"] == "Running"
        node.delete("first")
        node.gone("first")
        node.pod("next", {"name": "server", "image": "nginx", **most, **port})
        node.ready("next")
        assert node.get("elsewhere")["status"]["phase"] == "Failed"


def test_a_full_node_makes_room_for_a_critical_pod() -> None:
    with running_node() as node:
        node.service_account()
        cpus = int(node.call("GET", "/api/v1/nodes/node-1")["status"]["allocatable"]["cpu"])
        most, least = ({"resources": {"requests": {"cpu": amount}}} for amount in (f"{cpus * 1000 - 100}m", "100m"))
        slow = 'trap asked=1 TERM; until test "$asked" && test -e /shared/enough; do sleep 0.1; done; exit 3'
        victim = node.pod(
            "victim",
            {**machine(slow, volumeMounts=[{"name": "shared", "mountPath": "/shared"}]), **most},
            volumes=[{"name": "shared", "emptyDir": {}}],
            terminationGracePeriodSeconds=600,
        )
        node.pod("stays", {"name": "server", "image": "nginx", **least})
        for name in ("victim", "stays"):
            node.ready(name)
        node.pod("system", {"name": "server", "image": "nginx", **most}, priorityClassName="system-node-critical")
        going = node.wait("victim", lambda status: condition(status, "DisruptionTarget") == "True")
        [told] = [one for one in going["status"]["conditions"] if one["type"] == "DisruptionTarget"]
        words = "Pod was preempted by Kubelet to accommodate a critical pod."
        assert (told["reason"], told["message"], going["status"]["phase"]) == ("TerminationByKubelet", words, "Running")
        # The room that is to be is the critical Pod's, and nothing begins before it is there, also when the agent is another one by then.
        node.pod("late", {"name": "server", "image": "nginx", **least})
        assert node.wait("late", lambda status: status.get("phase") == "Failed")["status"]["reason"] == "OutOfcpu"
        eventually(lambda: "Preempting: Preempted in order to admit critical pod" in node.events("victim"))
        node.kill("agent")
        node.start_agent()
        node.pod("small", {"name": "server", "image": "nginx"})
        for name in ("system", "small"):
            status = node.wait(name, lambda status: status.get("containerStatuses"))["status"]
            assert (status["phase"], "podIP" in status) == ("Pending", False)
        (node.folder / "state/nodes" / NODE / "pods" / victim["metadata"]["uid"] / "volumes/shared/enough").touch()
        status = node.wait("victim", lambda status: status.get("phase") == "Failed")["status"]
        assert (status["reason"], status["message"]) == ("Preempting", "Preempted in order to admit critical pod")
        assert terminated(status)["exitCode"] == 3
        for name in ("system", "small", "stays"):
            node.ready(name)
        node.delete("victim")
        node.gone("victim")


def test_a_node_runs_what_its_runtime_classes_name() -> None:
    with running_node() as node:
        node.service_account()
        classes = "/apis/node.k8s.io/v1/runtimeclasses"
        for name, handler in (("sandboxed", "gvisor"), ("plain", "runc")):
            node.create(classes, {"metadata": {"name": name}, "handler": handler})
            node.pod(name, {"name": "main", "image": "nginx"}, runtimeClassName=name)
        node.ready("plain")
        words = 'FailedCreatePodSandBox: Failed to create pod sandbox: failed to get sandbox runtime: no runtime for "gvisor" is configured'
        eventually(lambda: words in node.events("sandboxed"), lambda: node.events("sandboxed"))
        assert node.get("sandboxed")["status"]["phase"] == "Pending"


def test_commands_of_probes_and_hooks_run_in_the_container() -> None:
    with running_node() as node:
        node.service_account()
        began = {"exec": {"command": ["sh", "-c", "echo hooked > /tmp/hooked"]}}
        ended = {"exec": {"command": ["sh", "-c", "cat /tmp/hooked /tmp/up > /dev/termination-log; kill -TERM 1"]}}
        probe = {"exec": {"command": ["cat", "/tmp/up"]}, "periodSeconds": 1}
        # It writes more than is kept, and the child that it leaves holds its output open.
        loud = {
            "exec": {"command": ["sh", "-c", "sleep 3 & echo; head -c 300000 /dev/zero | tr '\\\\0' x; test -e /tmp/hooked"]},
            "timeoutSeconds": 2,
        }
        main = machine(
            "trap 'exit 0' TERM; sleep 1; echo up > /tmp/up; while :; do sleep 0.1; done",
            startupProbe=probe | {"failureThreshold": 10},
            readinessProbe=probe,
            livenessProbe=loud | {"periodSeconds": 1, "failureThreshold": 2},
            lifecycle={"postStart": began, "preStop": ended},
        )
        finalizer = {"metadata": {"name": "probed", "finalizers": ["podwire.dev/kept"]}}
        spec = {"nodeName": "node-1", "containers": [main]}
        node.create("/api/v1/namespaces/default/pods", finalizer | {"spec": spec})
        status = node.ready("probed")["status"]
        assert status["containerStatuses"][0]["restartCount"] == 0

        def unhealthy() -> set[str]:
            return {event for event in node.events("probed") if event.startswith("Unhealthy")}

        eventually(unhealthy)
        assert unhealthy() == {"Unhealthy: Startup probe failed: cat: /tmp/up: No such file or directory\n"}
        node.delete("probed")
        status = node.wait("probed", lambda status: status.get("phase") == "Succeeded")["status"]
        assert (terminated(status)["exitCode"], terminated(status)["message"]) == (0, "hooked\nup\n")


def test_containers_have_restart_policies_of_their_own() -> None:
    once = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    rule = {"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}
    other = {"action": "Restart", "exitCodes": {"operator": "NotIn", "values": [0, 3]}}
    with running_node() as node:
        node.service_account()
        volumes = [{"name": "v", "emptyDir": {}}]
        retry = "test -e /v/$0 && exit {}; touch /v/$0; exit {}"
        ruled = machine(retry.format(0, 42), restartPolicy="Never", restartPolicyRules=[rule], **once)
        others = machine(retry.format(3, 5), "others", restartPolicy="Never", restartPolicyRules=[other], **once)
        begins = machine("test -e /v/init || { touch /v/init; exit 1; }", "begins", restartPolicy="OnFailure", **once)
        for container in (ruled, others):
            container["command"].append(container["name"])
        node.pod("ruled", ruled, others, initContainers=[begins], restartPolicy="Never", volumes=volumes)
        status = node.wait("ruled", lambda status: status.get("phase") == "Failed")["status"]
        assert [(one["restartCount"], terminated(status, index)["exitCode"]) for index, one in enumerate(status["containerStatuses"])] == [
            (1, 0),
            (1, 3),
        ]
        assert status["initContainerStatuses"][0]["restartCount"] == 1
        never = machine("exit 42", restartPolicy="Never", restartPolicyRules=[rule | {"exitCodes": {"operator": "In", "values": [1]}}])
        stays = machine("trap 'exit 0' TERM; while :; do sleep 0.1; done", "stays", restartPolicy="Always")
        node.pod("mixed", never, stays)
        status = node.wait("mixed", lambda status: "terminated" in str(status.get("containerStatuses", ())))["status"]
        assert (status["phase"], terminated(status)["exitCode"]) == ("Running", 42)
        node.delete("mixed")
        node.gone("mixed")
        node.pod("gated", {"name": "c", "image": "nginx"}, nodeName=None, schedulingGates=[{"name": "example.com/wait"}])
        [told] = node.get("gated")["status"]["conditions"]
        assert (told["type"], told["status"], told["reason"]) == ("PodScheduled", "False", "SchedulingGated")
        assert told["message"] == "Scheduling is blocked due to non-empty scheduling gates"


def test_what_containers_ask_for_changes_while_they_run() -> None:
    with running_node() as node:
        node.service_account()
        cpus = int(node.call("GET", "/api/v1/nodes/node-1")["status"]["allocatable"]["cpu"])
        ask = {"requests": {"cpu": "100m", "memory": "10Mi"}, "limits": {"cpu": str(2 * cpus)}}
        again = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
        node.pod("grows", machine("exec sleep 1000", resources=ask, resizePolicy=again))
        node.pod("other", {"name": "main", "image": "nginx", "resources": {"requests": {"cpu": f"{cpus * 1000 - 500}m"}}})
        node.ready("other")
        node.ready("grows")

        def resize(**requests: str) -> Tree:
            patch = {"spec": {"containers": [{"name": "main", "resources": {"requests": requests}}]}}
            return node.call("PATCH", "/api/v1/namespaces/default/pods/grows/resize", patch, "application/strategic-merge-patch+json")

        def has(cpu: str, memory: str, why: str = "") -> Tree:
            def holds(status: Tree) -> bool:
                [own] = status["containerStatuses"]
                told = [f"{one['reason']}: {one['message']}" for one in status["conditions"] if one["type"] == "PodResizePending"]
                amounts = own["allocatedResources"]
                return (amounts["cpu"], amounts["memory"]) == (cpu, memory) and told == ([why] if why else []) and bool(own["ready"])

            return node.wait("grows", holds, f"it has {cpu}, {memory}")

        assert resize(cpu="200m")["metadata"]["generation"] == 2
        assert has("200m", "10Mi")["status"]["containerStatuses"][0]["restartCount"] == 0
        resize(cpu=f"{cpus + 1}")
        has("200m", "10Mi", f"Infeasible: Node didn't have enough capacity: cpu, requested: {cpus + 1}000, capacity: {cpus}000")
        resize(cpu="600m")
        words = f"requested: 600, used: {cpus * 1000 - 500}, capacity: {cpus}000"
        has("200m", "10Mi", f"Deferred: Node didn't have enough resource: cpu, {words}")
        node.kill("agent")
        node.start_agent()
        has("200m", "10Mi", f"Deferred: Node didn't have enough resource: cpu, {words}")
        node.delete("other")
        node.gone("other")
        assert has("600m", "10Mi")["status"]["containerStatuses"][0]["restartCount"] == 0
        resize(memory="20Mi")
        node.wait("grows", lambda status: status["containerStatuses"][0]["restartCount"] == 1, "memory is had by a new run")
        has("600m", "20Mi")


def test_a_pod_is_over_when_its_sidecars_have_ended_too() -> None:
    with running_node() as node:
        node.service_account()
        side = machine("trap 'sleep 0.5; exit 0' TERM; while :; do sleep 0.05; done", "side", restartPolicy="Always")
        made = node.pod("job", machine("exit 3"), initContainers=[side], restartPolicy="Never")
        node.wait("job", lambda status: status.get("phase") == "Failed")
        seen = [(one["phase"], "running" in one["initContainerStatuses"][0]["state"]) for one in node.changes(made) if "phase" in one]
        assert ("Failed", True) not in seen
        assert ("Failed", False) in seen
        ended = [one for one in node.changes(made) if "terminated" in one["containerStatuses"][0]["state"]]
        assert ended[0]["phase"] == "Running", "the sidecar takes its time"
