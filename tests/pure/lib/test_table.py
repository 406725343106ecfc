from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from podwire.lib.table import Table


@dataclass(frozen=True)
class Row:
    name: str
    colours: tuple[str, ...] = ()
    size: int = 0


def table() -> Table[Row]:
    return Table(lambda row: row.name, colour=lambda row: row.colours, size=lambda row: [row.size])


def test_a_snapshot_never_changes() -> None:
    rows = table()
    rows.put(Row("a", ("red",)))
    before = rows.snapshot()
    rows.put(Row("a", ("blue",)))
    rows.put(Row("b", ("red",)))
    rows.delete("a")
    assert [row.colours for row in before] == [("red",)]
    assert before.by("colour", "red") == (Row("a", ("red",)),)
    assert before.by("colour", "blue") == ()
    assert rows.snapshot().by("colour", "red") == (Row("b", ("red",)),)
    assert rows.snapshot().revision > before.revision


def test_put_and_delete_give_the_row_that_was_there() -> None:
    rows = table()
    assert rows.put(Row("a")) is None
    assert rows.put(Row("a", size=1)) == Row("a")
    assert rows.delete("a") == Row("a", size=1)
    assert rows.delete("a") is None


def test_replace_tells_what_changed_and_nothing_else() -> None:
    rows = table()
    rows.replace([Row("a"), Row("b"), Row("c")])
    revision = rows.snapshot().revision
    assert rows.replace([Row("b"), Row("a"), Row("c")]) == set()
    assert rows.snapshot().revision == revision
    assert rows.replace([Row("a"), Row("b", size=2), Row("d")]) == {"b", "c", "d"}
    assert sorted(rows.snapshot().keys()) == ["a", "b", "d"]


def test_an_index_added_later_holds_the_rows_that_are_there() -> None:
    rows: Table[Row] = Table(lambda row: row.name)
    rows.put(Row("a", size=1))
    rows.add_index("size", lambda row: [row.size])
    rows.put(Row("b", size=1))
    assert [row.name for row in rows.by("size", 1)] == ["a", "b"]


row = st.builds(Row, st.sampled_from("abcdef"), st.lists(st.sampled_from(["red", "blue"]), max_size=3).map(tuple), st.integers(0, 2))
step = st.one_of(row, st.sampled_from("abcdef"), st.lists(row, max_size=4))


@given(st.lists(step))
def test_indexes_kept_step_by_step_equal_indexes_made_anew(steps: list[Row | str | list[Row]]) -> None:
    rows = table()
    plain: dict[str, Row] = {}
    for change in steps:
        if isinstance(change, Row):
            assert rows.put(change) == plain.get(change.name)
            plain[change.name] = change
        elif isinstance(change, str):
            assert rows.delete(change) == plain.pop(change, None)
        else:
            rows.replace(change)
            plain = {value.name: value for value in change}
        snapshot = rows.snapshot()
        assert {value.name: value for value in snapshot} == plain
        assert len(snapshot) == len(plain)
        for colour in ("red", "blue"):
            wanted = [plain[name] for name in sorted(plain) if colour in plain[name].colours]
            assert list(snapshot.by("colour", colour)) == wanted
        assert set(snapshot.values_of("size")) == {value.size for value in plain.values()}
