"""What a container is not shown of the machine, however it asks. Each test has a program that is not contained as its control."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from kernel.linux.starting import First, bash, first_process
from podwire.linux import syscalls, view

SECRET = "the-key-of-somebody"
PLACES = "/home /mnt /opt /srv/people/ /srv/root/home /host/home /host/srv/root/home /own /proc/1/root/home /proc/self/root/home"
LOOK = f"grep -rslF {SECRET} {PLACES} /proc/*/cwd/home | sort -u; echo looked"


def contained(first: First, script: str, **more: object) -> str:
    return first.run(bash(script, **more).contained())[1]


def a_home() -> Path:
    """A person's home, on file systems of the test's own: it must be called in its namespaces."""
    assert not os.path.exists("/home/me")
    for place in ("/home", "/mnt", "/opt", "/srv"):
        syscalls.mount("tmpfs", place, "tmpfs")
    made = Path("/home/me")
    for folder in (".ssh", ".kube", ".config/gcloud", ".config/app", "work"):
        (made / folder).mkdir(parents=True)
    for file in (".ssh/id", ".kube/config", ".config/gcloud/token", ".netrc", "work/key.yaml"):
        (made / file).write_text(SECRET)
    (made / "work/program").write_text("to be read")
    (made / ".config/app/settings").write_text("to be read")
    return made


HIDDEN = [f"/home/me/{name}" for name in (".ssh", ".kube", ".config/gcloud", ".netrc", "work/key.yaml", ".aws", ".new/way")]


def test_keys_are_hidden_and_the_rest_is_not() -> None:
    home = a_home()
    with first_process() as first:
        assert SECRET in first.run(bash(f"cat {home}/.ssh/id"))[1], "without it, they are read"
        told = contained(first, LOOK, hidden=HIDDEN)
        assert told == "looked\n"
        told = contained(first, f"cd {home}; ls -A . .ssh .config; cat work/program .config/app/settings; wc -c < .netrc", hidden=HIDDEN)
        assert told.split() == (
            [".:", ".config", ".kube", ".netrc", ".ssh", "work", ".config:", "app", "gcloud", ".ssh:", "to", "be", "readto", "be", "read0"]
        )
        refused = contained(first, f"echo x > {home}/.ssh/x; echo x > {home}/.netrc; echo x > {home}/x; mkdir {home}/.aws", hidden=HIDDEN)
        assert refused.count("Read-only file system") == 4


def test_other_names_for_the_same() -> None:
    home = a_home()
    shutil.move(home / ".kube", "/opt/kube")
    os.symlink("/opt/kube", home / ".kube")
    os.symlink(home / ".ssh", "/opt/link")
    os.symlink("/home", "/srv/people")
    os.makedirs("/mnt/again")
    os.makedirs("/mnt/part")
    os.makedirs("/srv/root")
    subprocess.run(["mount", "--bind", "/home", "/mnt/again"], check=True)
    subprocess.run(["mount", "--bind", str(home / ".ssh"), "/mnt/part"], check=True)
    subprocess.run(["mount", "--rbind", "/", "/srv/root"], check=True)
    with first_process() as first:
        assert first.run(bash(LOOK))[1].count("\n") > 10, "there are many ways to them"
        assert contained(first, LOOK, hidden=HIDDEN) == "looked\n"
        assert contained(first, LOOK, hidden=HIDDEN, files={"/host": view.ROOT, "/own": "/home"}) == "looked\n"
        told = contained(
            first, "cat /mnt/again/me/work/program /srv/people/me/work/program /own/me/work/program", hidden=HIDDEN, files={"/own": "/home"}
        )
        assert told == "to be read" * 3


def test_what_is_made_or_replaced_later_stays_hidden() -> None:
    home = a_home()
    with first_process() as first:
        fifo = "/home/me/work/fifo"
        os.mkfifo(fifo)
        script = f"echo begun; cat {fifo} > /dev/null; {LOOK}"
        started = first.client.spawn("late", bash(script, hidden=HIDDEN, stdout="/home/out").contained())
        os.close(started.descriptor)
        with open(fifo, "w") as told:  # opened once the container reads: its view is made
            for name in (".ssh", ".kube", ".config/gcloud"):
                os.rename(home / name, home / f"{name}.old")
                subprocess.run(["cp", "-r", home / f"{name}.old", home / name], check=True)
                subprocess.run(["rm", "-r", home / f"{name}.old"], check=True)
            for name in (".netrc", "work/key.yaml"):
                (home / "work/other").write_text(SECRET)
                os.rename(home / "work/other", home / name)
            for name in (".aws", ".new/way"):
                (home / name).mkdir(parents=True)
                (home / name / "key").write_text(SECRET)
            told.write("go on")
        first.ended("late")
        assert SECRET in first.run(bash(f"cat {home}/.aws/key"))[1]
        assert Path("/home/out").read_text() == "begun\nlooked\n"


def test_a_container_cannot_take_away_what_hides() -> None:
    home = a_home()
    own = "mkdir /tmp/b; mount --rbind /home /tmp/b; umount /tmp/b/me/.ssh; umount /tmp/b/me"
    tries = [
        f"umount -l {home}/.ssh {home} /home",
        f"unshare -Urm sh -c 'umount -l {home}/.ssh; umount -l {home}; umount -l /home; {LOOK}'",
        f"unshare -Urm sh -c 'mkdir /tmp/b; mount --bind / /tmp/b; grep -rsF {SECRET} /tmp/b/home'",
        f"unshare -Urm sh -c '{own}; grep -rsF {SECRET} /tmp/b'",
        f"cd {home}; for i in 1 2 3; do cd ..; done; {LOOK}",
        "cat /proc/1/cwd/home/me/.ssh/id /proc/thread-self/root/home/me/.ssh/id",
    ]
    with first_process() as first:
        for attempt in tries:
            told = contained(first, f"{attempt}; {LOOK}", hidden=HIDDEN, own_processes=True)
            assert SECRET not in told, attempt
            assert not [line for line in told.splitlines() if line.startswith(("/home/", "/proc/")) and "hidden" not in line], told


def test_a_volume_lies_where_something_is_hidden() -> None:
    home = a_home()
    (home / ".kube/volume").mkdir()
    (home / ".kube/volume/data").write_text("of the Pod")
    volume = str(home / ".kube/volume")
    with first_process() as first:
        script = f"cat {home}/.kube/config /data/data; cat {home}/.aws/config; echo more > /writable/more; {LOOK}"
        told = contained(
            first,
            script,
            hidden=HIDDEN,
            files={f"{home}/.kube": volume, "/data": volume, f"{home}/.aws": volume},
            folders={"/writable": volume},
        )
        assert "of the Pod" in told
        assert told.endswith("\nlooked\n")
    assert (home / ".kube/volume/more").read_text() == "more\n"
