"""Names of what no container is shown."""

from __future__ import annotations

import pytest

from podwire.cluster import private
from podwire.linux.concealment import Mount, aliases, parse

MOUNTS = """\
22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
30 22 0:25 / /proc rw - proc proc rw
31 22 8:1 /home/me /srv/my\\040home rw - ext4 /dev/sda1 rw
32 22 8:1 / /host rw - ext4 /dev/sda1 rw
33 22 8:1 /home/me/.ssh/work /mnt/keys rw - ext4 /dev/sda1 rw
34 22 8:2 / /data rw - ext4 /dev/sda2 rw
35 22 0:50 /gone//deleted /mnt/gone rw - tmpfs none rw
"""


def test_where_a_file_system_is_mounted_again() -> None:
    mounts = parse(MOUNTS)
    assert Mount("8:1", "/home/me", "/srv/my home") in mounts
    assert not [one for one in mounts if "gone" in one.point]
    assert aliases("/home/me/.ssh", mounts) == {"/srv/my home/.ssh", "/host/home/me/.ssh", "/mnt/keys"}
    assert aliases("/home/me", mounts) == {"/srv/my home", "/host/home/me", "/mnt/keys"}
    assert aliases("/host/home/me/.kube", mounts) == {"/srv/my home/.kube", "/home/me/.kube"}
    assert aliases("/data/secret", mounts) == set()
    assert aliases("/srv", mounts) == {"/host/srv"}


@pytest.mark.parametrize(
    ("environment", "hidden"),
    [
        ({}, {"/home/me/.ssh", "/home/me/.kube", "/home/me/.config/gcloud", "/home/me/.local/state/podwire", "/root/.aws", "/s/podwire"}),
        ({"HOME": "/elsewhere"}, {"/elsewhere/.gnupg", "/elsewhere/.netrc", "/home/me/.docker", "/etc/shadow"}),
        ({"XDG_CONFIG_HOME": "/c", "XDG_STATE_HOME": "/s2"}, {"/c/gcloud", "/c/gh", "/s2/podwire", "/home/me/.config/gcloud"}),
        ({"KUBECONFIG": "/k/one.yaml:/k/two.yaml:"}, {"/k/one.yaml", "/k/two.yaml"}),
        ({"CLOUDSDK_CONFIG": "/g", "GNUPGHOME": "/p/../q"}, {"/g", "/q"}),
    ],
)
def test_what_is_hidden(environment: dict[str, str], hidden: set[str]) -> None:
    found = set(private.names(environment, ["/home/me", "/root", "/", "none"], "/s/podwire"))
    assert hidden <= found
    assert not found & {"/home/me", "/root", "/", "/.ssh", "/k", ""}
    assert all(path.startswith("/") for path in found)


def test_whose_homes() -> None:
    assert "/root" in private.homes()
