"""The core group, version v1.

Source: https://kubernetes.io/docs/reference/kubernetes-api/
"""

from __future__ import annotations

from podwire.objects.meta import Object, Value
from podwire.objects.placement import Affinity, Toleration, TopologySpreadConstraint
from podwire.objects.volumes import ObjectFieldSelector, ResourceFieldSelector, Volume


class ObjectReference(Value, frozen=True):
    api_version: str = ""
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""
    resource_version: str = ""
    field_path: str = ""


class Condition(Value, frozen=True):
    type: str = ""
    status: str = "Unknown"
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None
    last_heartbeat_time: str | None = None
    last_probe_time: str | None = None
    last_update_time: str | None = None
    observed_generation: int | None = None


# Namespace, ConfigMap, Secret, ServiceAccount ------------------------------------------------------------------------


class NamespaceStatus(Value, frozen=True):
    phase: str = ""


class Namespace(Object, frozen=True):
    status: NamespaceStatus = NamespaceStatus()


class ConfigMap(Object, frozen=True):
    data: dict[str, str] = {}
    binary_data: dict[str, str] = {}


class Secret(Object, frozen=True):
    """``data`` is base64 text, as the API writes it."""

    type: str = "Opaque"
    data: dict[str, str] = {}


class RuntimeClass(Object, frozen=True):
    handler: str = ""


class LocalObjectReference(Value, frozen=True):
    name: str = ""


class ServiceAccount(Object, frozen=True):
    secrets: tuple[ObjectReference, ...] = ()
    automount_service_account_token: bool | None = None


# Service and Endpoints -------------------------------------------------------------------------------------------------


class ServicePort(Value, frozen=True):
    name: str = ""
    protocol: str = "TCP"
    app_protocol: str = ""
    port: int = 0
    target_port: int | str = 0
    node_port: int = 0


class ClientIPConfig(Value, frozen=True):
    timeout_seconds: int = 10800


class SessionAffinityConfig(Value, frozen=True):
    client_ip: ClientIPConfig = ClientIPConfig()


class ServiceSpec(Value, frozen=True):
    type: str = "ClusterIP"
    selector: dict[str, str] = {}
    ports: tuple[ServicePort, ...] = ()
    cluster_ip: str = ""
    cluster_ips: tuple[str, ...] = ()
    ip_families: tuple[str, ...] = ()
    external_ips: tuple[str, ...] = ()
    external_name: str = ""
    load_balancer_ip: str = ""
    load_balancer_class: str = ""
    load_balancer_source_ranges: tuple[str, ...] = ()
    session_affinity: str = "None"
    session_affinity_config: SessionAffinityConfig = SessionAffinityConfig()
    external_traffic_policy: str = ""
    internal_traffic_policy: str = "Cluster"
    traffic_distribution: str = ""
    health_check_node_port: int = 0
    publish_not_ready_addresses: bool = False


class LoadBalancerIngress(Value, frozen=True):
    ip: str = ""
    hostname: str = ""
    ip_mode: str = "VIP"


class LoadBalancerStatus(Value, frozen=True):
    ingress: tuple[LoadBalancerIngress, ...] = ()


class ServiceStatus(Value, frozen=True):
    load_balancer: LoadBalancerStatus = LoadBalancerStatus()
    conditions: tuple[Condition, ...] = ()


class Service(Object, frozen=True):
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()


class EndpointAddress(Value, frozen=True):
    ip: str = ""
    hostname: str = ""
    node_name: str = ""
    target_ref: ObjectReference | None = None


class EndpointsPort(Value, frozen=True):
    name: str = ""
    port: int = 0
    protocol: str = "TCP"
    app_protocol: str = ""


class EndpointSubset(Value, frozen=True):
    addresses: tuple[EndpointAddress, ...] = ()
    not_ready_addresses: tuple[EndpointAddress, ...] = ()
    ports: tuple[EndpointsPort, ...] = ()


class Endpoints(Object, frozen=True):
    subsets: tuple[EndpointSubset, ...] = ()


# Node ------------------------------------------------------------------------------------------------------------------


class Taint(Value, frozen=True):
    key: str = ""
    value: str = ""
    effect: str = ""
    time_added: str | None = None


class NodeSpec(Value, frozen=True):
    pod_cidr: str = ""
    pod_cidrs: tuple[str, ...] = ()
    provider_id: str = ""
    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()


class NodeAddress(Value, frozen=True):
    type: str = ""
    address: str = ""


class NodeDaemonEndpoint(Value, frozen=True, rename={"port": "Port"}):
    port: int = 0


class NodeDaemonEndpoints(Value, frozen=True):
    kubelet_endpoint: NodeDaemonEndpoint = NodeDaemonEndpoint()


class NodeSystemInfo(Value, frozen=True):
    machine_id: str = ""
    system_uuid: str = ""
    boot_id: str = ""
    kernel_version: str = ""
    os_image: str = ""
    container_runtime_version: str = ""
    kubelet_version: str = ""
    kube_proxy_version: str = ""
    operating_system: str = ""
    architecture: str = ""


class NodeStatus(Value, frozen=True):
    addresses: tuple[NodeAddress, ...] = ()
    capacity: dict[str, str] = {}
    allocatable: dict[str, str] = {}
    conditions: tuple[Condition, ...] = ()
    node_info: NodeSystemInfo = NodeSystemInfo()
    daemon_endpoints: NodeDaemonEndpoints = NodeDaemonEndpoints()


class Node(Object, frozen=True):
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()

    @property
    def internal_ips(self) -> tuple[str, ...]:
        """The node IPs, the primary family's first."""
        return tuple(a.address for a in self.status.addresses if a.type == "InternalIP")

    @property
    def ready(self) -> bool:
        return any(c.type == "Ready" and c.status == "True" for c in self.status.conditions)


# Pod -------------------------------------------------------------------------------------------------------------------


class ContainerPort(Value, frozen=True):
    name: str = ""
    container_port: int = 0
    host_port: int = 0
    host_ip: str = ""
    protocol: str = "TCP"


class HTTPHeader(Value, frozen=True):
    name: str = ""
    value: str = ""


class HTTPGetAction(Value, frozen=True):
    path: str = "/"
    port: int | str = 0
    host: str = ""
    scheme: str = "HTTP"
    http_headers: tuple[HTTPHeader, ...] = ()


class TCPSocketAction(Value, frozen=True):
    port: int | str = 0
    host: str = ""


class GRPCAction(Value, frozen=True):
    port: int = 0
    service: str = ""


class ExecAction(Value, frozen=True):
    command: tuple[str, ...] = ()


class SleepAction(Value, frozen=True):
    seconds: int = 0


class Probe(Value, frozen=True):
    http_get: HTTPGetAction | None = None
    tcp_socket: TCPSocketAction | None = None
    grpc: GRPCAction | None = None
    exec: ExecAction | None = None
    initial_delay_seconds: int = 0
    timeout_seconds: int = 1
    period_seconds: int = 10
    success_threshold: int = 1
    failure_threshold: int = 3
    termination_grace_period_seconds: int | None = None


class LifecycleHandler(Value, frozen=True):
    http_get: HTTPGetAction | None = None
    tcp_socket: TCPSocketAction | None = None
    exec: ExecAction | None = None
    sleep: SleepAction | None = None


class Lifecycle(Value, frozen=True):
    post_start: LifecycleHandler | None = None
    pre_stop: LifecycleHandler | None = None
    stop_signal: str = ""


class KeySelector(Value, frozen=True):
    """``configMapKeyRef`` and ``secretKeyRef``."""

    name: str = ""
    key: str = ""
    optional: bool = False


class EnvVarSource(Value, frozen=True):
    field_ref: ObjectFieldSelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None
    config_map_key_ref: KeySelector | None = None
    secret_key_ref: KeySelector | None = None


class EnvVar(Value, frozen=True):
    name: str = ""
    value: str = ""
    value_from: EnvVarSource | None = None


class EnvSourceReference(Value, frozen=True):
    name: str = ""
    optional: bool = False


class EnvFromSource(Value, frozen=True):
    prefix: str = ""
    config_map_ref: EnvSourceReference | None = None
    secret_ref: EnvSourceReference | None = None


class VolumeMount(Value, frozen=True):
    name: str = ""
    mount_path: str = ""
    sub_path: str = ""
    sub_path_expr: str = ""
    read_only: bool = False


class ResourceRequirements(Value, frozen=True):
    requests: dict[str, str | int | float] = {}
    limits: dict[str, str | int | float] = {}


class ContainerResizePolicy(Value, frozen=True):
    resource_name: str = ""
    restart_policy: str = ""


class SeccompProfile(Value, frozen=True):
    type: str = ""
    localhost_profile: str = ""


class AppArmorProfile(Value, frozen=True):
    type: str = ""


class Capabilities(Value, frozen=True):
    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


class SecurityContext(Value, frozen=True):
    """What a container's own and its Pod's have in common, as far as anything here reads it."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    seccomp_profile: SeccompProfile | None = None
    app_armor_profile: AppArmorProfile | None = None


class ContainerSecurityContext(SecurityContext, frozen=True):
    allow_privilege_escalation: bool | None = None
    privileged: bool | None = None
    read_only_root_filesystem: bool | None = None
    capabilities: Capabilities | None = None


class Sysctl(Value, frozen=True):
    name: str = ""
    value: str = ""


class PodSecurityContext(SecurityContext, frozen=True):
    sysctls: tuple[Sysctl, ...] = ()
    fs_group: int | None = None
    fs_group_change_policy: str = ""
    supplemental_groups: tuple[int, ...] = ()
    supplemental_groups_policy: str = ""


class ExitCodes(Value, frozen=True):
    operator: str = ""
    values: tuple[int, ...] = ()


class ContainerRestartRule(Value, frozen=True):
    """What becomes of a container that ends with one of these statuses (``NotIn``: with any other one)."""

    action: str = ""
    exit_codes: ExitCodes | None = None


class Container(Value, frozen=True):
    name: str = ""
    image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str = ""
    ports: tuple[ContainerPort, ...] = ()
    env: tuple[EnvVar, ...] = ()
    env_from: tuple[EnvFromSource, ...] = ()
    resources: ResourceRequirements = ResourceRequirements()
    resize_policy: tuple[ContainerResizePolicy, ...] = ()
    volume_mounts: tuple[VolumeMount, ...] = ()
    restart_policy: str = ""
    restart_policy_rules: tuple[ContainerRestartRule, ...] = ()
    image_pull_policy: str = ""
    readiness_probe: Probe | None = None
    liveness_probe: Probe | None = None
    startup_probe: Probe | None = None
    lifecycle: Lifecycle | None = None
    security_context: ContainerSecurityContext | None = None
    termination_message_path: str = "/dev/termination-log"
    termination_message_policy: str = "File"
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    target_container_name: str = ""  # of an ephemeral one: whose processes it sees


class HostAlias(Value, frozen=True):
    ip: str = ""
    hostnames: tuple[str, ...] = ()


class PodDNSConfigOption(Value, frozen=True):
    name: str = ""
    value: str | None = None


class PodDNSConfig(Value, frozen=True):
    nameservers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[PodDNSConfigOption, ...] = ()


class ReadinessGate(Value, frozen=True):
    condition_type: str = ""


class PodSpec(Value, frozen=True):
    node_name: str = ""
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()
    ephemeral_containers: tuple[Container, ...] = ()
    volumes: tuple[Volume, ...] = ()
    restart_policy: str = "Always"
    service_account_name: str = ""
    automount_service_account_token: bool | None = None
    host_network: bool = False
    host_pid: bool = False
    host_ipc: bool = False
    share_process_namespace: bool = False
    security_context: PodSecurityContext | None = None
    hostname: str = ""
    hostname_override: str = ""
    subdomain: str = ""
    set_hostname_as_fqdn: bool = False
    dns_policy: str = "ClusterFirst"
    dns_config: PodDNSConfig | None = None
    host_aliases: tuple[HostAlias, ...] = ()
    enable_service_links: bool = True
    termination_grace_period_seconds: int = 30
    active_deadline_seconds: int | None = None
    readiness_gates: tuple[ReadinessGate, ...] = ()
    node_selector: dict[str, str] = {}
    affinity: Affinity | None = None
    tolerations: tuple[Toleration, ...] = ()
    topology_spread_constraints: tuple[TopologySpreadConstraint, ...] = ()
    scheduling_gates: tuple[LocalObjectReference, ...] = ()
    image_pull_secrets: tuple[LocalObjectReference, ...] = ()
    scheduler_name: str = "default-scheduler"
    runtime_class_name: str = ""
    overhead: dict[str, str | int | float] = {}
    priority: int = 0
    priority_class_name: str = ""
    preemption_policy: str = "PreemptLowerPriority"
    resources: ResourceRequirements | None = None
    os: LocalObjectReference | None = None


class ContainerStateWaiting(Value, frozen=True):
    reason: str = ""
    message: str = ""


class ContainerStateRunning(Value, frozen=True):
    started_at: str | None = None


class ContainerStateTerminated(Value, frozen=True):
    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    message: str = ""
    started_at: str | None = None
    finished_at: str | None = None
    container_id: str = ""


class ContainerState(Value, frozen=True):
    waiting: ContainerStateWaiting | None = None
    running: ContainerStateRunning | None = None
    terminated: ContainerStateTerminated | None = None


class ContainerStatus(Value, frozen=True):
    name: str = ""
    ready: bool = False
    started: bool | None = None
    restart_count: int = 0
    image: str = ""
    image_id: str = ""
    container_id: str = ""
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()


class PodIP(Value, frozen=True):
    ip: str = ""


class PodStatus(Value, frozen=True):
    observed_generation: int = 0
    phase: str = ""
    reason: str = ""
    message: str = ""
    pod_ip: str = ""
    pod_ips: tuple[PodIP, ...] = ()
    host_ip: str = ""
    host_ips: tuple[PodIP, ...] = ()
    start_time: str | None = None
    qos_class: str = ""
    nominated_node_name: str = ""
    conditions: tuple[Condition, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()
    init_container_statuses: tuple[ContainerStatus, ...] = ()


class Pod(Object, frozen=True):
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def ready(self) -> bool:
        return any(c.type == "Ready" and c.status == "True" for c in self.status.conditions)

    @property
    def terminating(self) -> bool:
        return self.metadata.deletion_timestamp is not None


class EventSource(Value, frozen=True):
    component: str = ""
    host: str = ""


class EventSeries(Value, frozen=True):
    count: int = 0
    last_observed_time: str | None = None


class Event(Object, frozen=True):
    involved_object: ObjectReference = ObjectReference()
    reason: str = ""
    message: str = ""
    type: str = "Normal"
    source: EventSource = EventSource()
    reporting_component: str = ""
    reporting_instance: str = ""
    action: str = ""
    count: int = 0
    first_timestamp: str | None = None
    last_timestamp: str | None = None
    event_time: str | None = None
    series: EventSeries | None = None
