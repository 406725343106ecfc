"""Threads that talk to a kernel: what they do in which order, and how they end."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from podwire.linux.asking import Asking
from podwire.linux.sending import Sending

LIMIT_S = 20


def asking(wanted: Sequence[Sequence[int]], into: list[bytes]) -> Asking[int]:
    return Asking(into.append, bytes, wanted)


def test_every_question_is_asked_once_and_two_at_most_are_unanswered() -> None:
    wanted, sent = [[number] * (1 + number % 3) for number in range(50)], list[bytes]()
    counts, answered = [], 0
    with asking(wanted, sent) as one:
        for count in one.asked():
            counts.append(count)
            assert len(sent) <= answered + 2
            answered += 1
            one.answered(whole=True)
    assert counts == [len(some) for some in wanted]
    assert sent == [bytes(some) for some in wanted]


def test_where_answers_are_missing_no_more_is_asked() -> None:
    sent, counts = list[bytes](), []
    with asking([[1], [2], [3], [4], [5]], sent) as one:
        for count in one.asked():
            counts.append(count)
            one.answered(whole=len(counts) < 2)
    assert 2 <= len(sent) <= 3
    assert len(counts) == len(sent), "what was asked is told, so that its answers are received"


def test_who_stops_hearing_ends_it() -> None:
    sent = list[bytes]()
    with asking([[number] for number in range(100)], sent) as one:
        assert next(one.asked()) == 1
    assert len(sent) <= 3


def test_a_question_that_cannot_be_asked_is_told() -> None:
    def send(_: bytes) -> None:
        raise OSError(90, "too long")

    with Asking(send, bytes, [[1], [2]]) as one, pytest.raises(OSError, match="too long"):
        list(one.asked())


def test_datagrams_are_sent_in_order_and_the_one_who_makes_them_waits_for_a_few() -> None:
    go, sent, made = threading.Semaphore(0), list[bytes](), list[int]()

    def send(datagram: bytes) -> None:
        assert go.acquire(timeout=LIMIT_S)
        sent.append(datagram)

    def make() -> None:
        with Sending(send) as sending:
            for number in range(30):
                sending.put(bytes([number]))
                made.append(number)
        counts.append(sending.news())

    counts = list[int]()
    maker = threading.Thread(target=make, daemon=True)
    maker.start()
    for number in range(30):
        assert len(made) <= number + 9
        go.release()
    maker.join(LIMIT_S)
    assert sent == [bytes([number]) for number in range(30)]
    assert counts == [30]


def test_after_a_failure_nothing_is_sent() -> None:
    tried = list[bytes]()

    def send(datagram: bytes) -> None:
        tried.append(datagram)
        if datagram == b"2":
            raise OSError(90, "too long")

    with Sending(send) as sending:
        for datagram in (b"1", b"2", b"3", b"4"):
            sending.put(datagram)
    assert tried == [b"1", b"2"]
    assert isinstance(sending.failure, OSError)
    assert sending.news() == 1
