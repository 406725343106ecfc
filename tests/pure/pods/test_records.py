"""Records on disk: the last one written is the one that is loaded, however long those before it were."""

from __future__ import annotations

import logging
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from podwire.pods.records import Records
from podwire.pods.runs import Record, Run


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.integers(0, 9000), min_size=1, max_size=6))
def test_the_last_one_written_is_loaded(tmp_path: Path, sizes: list[int]) -> None:
    records = Records(tmp_path / "pods", logging.getLogger("test"))
    for size in sizes:
        last = Record(uid="u", namespace="shop", name="web").with_run("main", Run(message="x" * size))
        records.write(last)
        assert records.load() == [last]
    assert [path.name for path in (tmp_path / "pods").iterdir()] == ["u.json"]
    records.write_files("u", {"hosts": "one", "empty": b""}, "etc")
    records.write_files("u", {"hosts": "two"}, "etc")
    assert Path(records.path("u", "etc/hosts")).read_text() == "two"
    assert Path(records.path("u", "etc/hosts")).stat().st_mode & 0o777 == 0o600
    records.remove("u")
    assert list((tmp_path / "pods").iterdir()) == []


def test_files_that_are_alike_are_one(tmp_path: Path) -> None:
    records = Records(tmp_path / "pods", logging.getLogger("test"))
    for uid in ("a", "b"):
        records.write_files(uid, {})
        records.share(uid, "resolv.conf", "nameserver 10.8.0.10\n")
    assert Path(records.path("a", "resolv.conf")).samefile(records.path("b", "resolv.conf"))
    records.share("a", "resolv.conf", "nameserver 10.9.0.10\n")
    assert [Path(records.path(uid, "resolv.conf")).read_text()[11:15] for uid in ("a", "b")] == ["10.9", "10.8"]
    records.remove("a")
    records.remove("b")
    records.load()
    assert [list(folder.iterdir()) for folder in tmp_path.iterdir()] == [[], []]


def test_a_record_that_is_none_is_set_aside(tmp_path: Path) -> None:
    records = Records(tmp_path / "pods", logging.getLogger("test"))
    (tmp_path / "pods/u.json").write_text("{")
    assert records.load() == []
    assert (tmp_path / "pods/u.unusable").exists()


def test_a_folder_without_a_record_is_nobodys(tmp_path: Path) -> None:
    records = Records(tmp_path / "pods", logging.getLogger("test"))
    records.write(Record(uid="kept", namespace="default", name="web"))
    (tmp_path / "pods/bad.json").write_text("{")
    for uid in ("kept", "bad", "left"):
        records.write_files(uid, {"0.log": "said"}, "main")
    assert [record.uid for record in records.load()] == ["kept"]
    assert {path.name for path in (tmp_path / "pods").iterdir()} == {"kept.json", "kept", "bad.unusable", "bad"}
