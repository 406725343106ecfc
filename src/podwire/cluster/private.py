"""What of the machine no container is shown, although it may read the rest: keys, tokens and passwords of its people. Names, nothing else.

A container whose image is ``podwire.dev/machine`` runs a program of the machine with the machine's files, so what a manifest says could
otherwise read whatever the cluster's user can. The names below are those where programs keep secrets by default, where the environment of
``up`` says that they are, and podwire's own state, which has the keys of every cluster. How they are hidden is in ``linux.view``:
also below other names, behind symbolic links, and when they are made later.

What must not be here: ``podwire exec``, which is the user's own act and sees everything.

Sources: the XDG Base Directory Specification; the FILES and ENVIRONMENT sections of the programs' manuals
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Final

_IN_HOME: Final = (
    ".aws",
    ".azure",
    ".bash_history",
    ".boto",
    ".cargo/credentials.toml",
    ".docker",
    ".git-credentials",
    ".gnupg",
    ".gsutil",
    ".kube",
    ".minikube",
    ".mozilla",
    ".my.cnf",
    ".netrc",
    ".npmrc",
    ".password-store",
    ".pgpass",
    ".pki",
    ".pypirc",
    ".python_history",
    ".ssh",
    ".terraform.d",
    ".thunderbird",
    ".vault-token",
    ".zsh_history",
)
_IN_CONFIG: Final = (
    "chromium",
    "containers",
    "doctl",
    "gcloud",
    "gh",
    "git/credentials",
    "glab-cli",
    "google-chrome",
    "helm",
    "hub",
    "op",
    "pip",
    "rclone",
    "sops",
)
_IN_DATA: Final = ("containers", "gnupg", "keyrings", "kwalletd")
_IN_STATE: Final = ("podwire",)
_ON_MACHINE: Final = (
    "/etc/gshadow",
    "/etc/kubernetes",
    "/etc/rancher",
    "/etc/shadow",
    "/etc/ssh",
    "/etc/ssl/private",
    "/etc/sudoers",
    "/etc/sudoers.d",
    "/var/lib/etcd",
    "/var/lib/kubelet",
    "/var/lib/rancher",
)
# variable: names of files or folders, one or several as in PATH
_VARIABLES: Final = (
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AZURE_CONFIG_DIR",
    "CLOUDSDK_CONFIG",
    "DOCKER_CONFIG",
    "GNUPGHOME",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "KUBECONFIG",
    "NETRC",
    "PASSWORD_STORE_DIR",
    "PGPASSFILE",
    "REGISTRY_AUTH_FILE",
)
_BASES: Final = (
    ("XDG_CONFIG_HOME", ".config", _IN_CONFIG),
    ("XDG_DATA_HOME", ".local/share", _IN_DATA),
    ("XDG_STATE_HOME", ".local/state", _IN_STATE),
)


def names(environment: Mapping[str, str], homes: Iterable[str], state: str) -> tuple[str, ...]:
    """Give what is to be hidden, absolute and sorted, whether it is there or not. ``state``: the folder of all clusters."""
    own = environment.get("HOME", "")
    found = {state, *_ON_MACHINE}
    for home in {own, *homes}:
        if os.path.isabs(home) and os.path.normpath(home) != "/":
            found |= {f"{home}/{name}" for name in _IN_HOME}
            found |= {f"{home}/{base}/{name}" for _, base, inside in _BASES for name in inside}
    for variable, _, inside in _BASES:
        base = environment.get(variable, "")
        if os.path.isabs(base):
            found |= {f"{base}/{name}" for name in inside}
    for variable in _VARIABLES:
        found |= {part for part in environment.get(variable, "").split(os.pathsep) if os.path.isabs(part)}
    return tuple(sorted({os.path.normpath(path) for path in found}))


def homes() -> list[str]:
    """The homes of the people of this machine, and of whoever runs this."""
    import pwd

    people = [one.pw_dir for one in pwd.getpwall() if one.pw_uid in {0, os.getuid()} or 1000 <= one.pw_uid < 60000]
    return sorted(set(people))
