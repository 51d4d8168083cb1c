"""Passes made into runs: prompts, drafts, what was accepted. Random engines are held against what they did."""

from __future__ import annotations

import random

import pytest

from radialsim import RecordError
from radialsim.recorder.pieces import Piece, Sequence
from radialsim.trace import Request, Run, Step, check_request

FULL = tuple(Step(layer) for layer in range(4))
HEAD, TAIL = FULL[:2], FULL[2:]


def pieces(*parts: tuple[int, int] | tuple[int, int, bool]) -> list[Piece]:
    """Parts are a start, a count of tokens, and whether they left early."""
    return [Piece(part[0], [HEAD if len(part) > 2 else FULL] * part[1], None, len(part) > 2) for part in parts]


def finish(parts: list[Piece], prompt: int | None = None, output: int | None = None, speculative: bool = False) -> Request:
    request = Sequence(3, 0.0, prompt, output, speculative, parts).finish()
    assert request is not None
    check_request(request, 4)
    return request


def shape(run: Run) -> tuple[object, ...]:
    return run.role, run.phase[0], run.start, len(run.routes), None if run.accepted is None else sum(run.accepted)


def test_a_prompt_in_parts_and_tokens_one_by_one() -> None:
    request = finish(pieces((0, 4), (4, 3), (7, 1), (8, 1)))
    assert (request.prompt_tokens, request.output_tokens) == (7, 3)
    assert [shape(run) for run in request.runs] == [(None, "p", 0, 7, None), (None, "d", 7, 2, None)]


def test_a_prompt_alone_gives_one_token() -> None:
    request = finish(pieces((0, 5)))
    assert (request.prompt_tokens, request.output_tokens, len(request.runs)) == (5, 1, 1)


def test_passes_for_other_rows_of_the_batch_are_left_out() -> None:
    request = finish(pieces((0, 2), (2, 1), (3, 1), (4, 1), (5, 1)), prompt=2, output=3)
    assert [shape(run) for run in request.runs] == [(None, "p", 0, 2, None), (None, "d", 2, 2, None)]


def test_a_round_of_drafts() -> None:
    # The draft has a cache of its own: it reads the prompt, and later what it did not draft, for itself.
    parts = pieces((0, 3, True), (3, 1, True), (0, 5), (4, 2, True), (6, 1, True), (5, 3))
    request = finish(parts, prompt=3, output=6)
    assert [shape(run) for run in request.runs] == [
        (None, "p", 0, 3, None),
        ("recompute", "p", 0, 3, None),
        ("draft", "d", 3, 1, None),
        ("verify", "d", 3, 2, 2),
        ("recompute", "d", 4, 1, None),
        ("draft", "d", 5, 2, None),
        ("verify", "d", 5, 3, 3),
    ]


def test_a_draft_that_the_verifying_pass_carries_on() -> None:
    parts = [Piece(0, [HEAD] * 3, None, True), Piece(3, [HEAD], None, True), Piece(0, [TAIL] * 4 + [FULL]), *pieces((5, 1))]
    request = finish(parts)
    assert [shape(run) for run in request.runs] == [
        (None, "p", 0, 3, None),
        ("draft", "d", 3, 1, None),
        ("verify", "d", 3, 2, 2),
        (None, "d", 5, 1, None),
    ]
    assert request.runs[0].routes == [FULL] * 3, "what the draft began and the pass carried on is one route"


def test_the_last_round_is_certain_only_of_its_first_token() -> None:
    request = finish(pieces((0, 3), (3, 1, True), (3, 3)))
    assert shape(request.runs[-1]) == ("verify", "d", 3, 3, 1)
    request = finish(pieces((0, 3), (3, 1, True), (3, 3)), output=3)
    assert shape(request.runs[-1]) == ("verify", "d", 3, 3, 2)


def test_tokens_that_leave_early_for_good_are_no_drafts() -> None:
    request = finish(pieces((0, 3), (3, 1, True), (4, 1, True)))
    assert [shape(run) for run in request.runs] == [(None, "p", 0, 3, None), (None, "d", 3, 2, None)]
    assert request.runs[1].routes == [HEAD, HEAD]


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (pieces((2, 3)), "starts at position 2, but only positions below 0 ran"),
        (pieces((0, 3), (4, 1)), "starts at position 4, but only positions below 3"),
        (pieces((0, 3), (0, 4), (0, 5)), "positions 0 to 3 ran again after position 2: a trace has each position once"),
        (pieces((0, 3), (3, 1), (4, 5)), "positions 4 to 8 behind a prompt of 3 tokens: a request has one prompt"),
        (pieces((0, 3), (3, 1, True), (3, 1, True), (3, 3)), "no trees"),
    ],
)
def test_what_a_trace_cannot_say_is_named(parts: list[Piece], said: str) -> None:
    with pytest.raises(RecordError, match=said):
        Sequence(3, 0.0, None, None, False, parts).finish()


@pytest.mark.parametrize("seed", range(60))
def test_random_engines_come_back(seed: int) -> None:
    """An engine drafts and verifies at random; the trace must say how many stayed each time, and what ran."""
    draw = random.Random(seed)
    prompt, output = draw.randint(1, 9), draw.randint(2, 20)
    own_cache = draw.random() < 0.5
    last = prompt + output - 1
    parts: list[Piece] = []
    # Positions below `frontier` stay; tokens below `known` are known; the draft's cache holds positions below `cached`.
    frontier, known, cached, work, rounds = 0, prompt, 0, 0, []
    if draw.random() < 0.5:
        parts += pieces((0, prompt))
        frontier, known, work = prompt, prompt + 1, 4 * prompt
    while frontier < last:
        ahead = draw.randint(0, min(4, last + 1 - known))
        begin = cached if own_cache else frontier
        for end in range(known, known + ahead):
            parts += pieces((begin, end - begin, True))
            work += 2 * (end - begin)
            begin = cached = end
        parts += pieces((frontier, known + ahead - frontier))
        work += 4 * (known + ahead - frontier)
        start, frontier = frontier, min(last, known + draw.randint(0, ahead))
        cached = min(cached, frontier)
        rounds.append((start, frontier, ahead))
        known = frontier + 1
    request = finish(parts, prompt, output, speculative=True)
    counted = [run for run in request.runs if run.role in (None, "verify")]
    assert sum(sum(run.accepted) if run.accepted is not None else len(run.routes) for run in counted) == last
    assert sum(len(route) for run in request.runs for route in run.routes) == work, "every call of a layer is in the trace, once"
    verified = [(run.start, run.start + sum(run.accepted)) for run in request.runs if run.accepted is not None]
    assert verified == [(max(start, prompt), end) for start, end, ahead in rounds if ahead]
    drafted = [len(run.routes) for run in request.runs if run.role == "draft"]
    assert sum(drafted) == sum(ahead - (start < prompt) for start, _, ahead in rounds if ahead)
