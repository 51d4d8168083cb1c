"""Writing traces: what is written can be read, and what readers refuse is refused before a file appears."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import reading

from radialsim import TraceError, trace
from radialsim.trace import Header, Request, Run, Step

FULL = (Step(0), Step(1), Step(2))
SHORT = (Step(0), Step(2, "f"))


def request(**changes: object) -> Request:
    runs = [Run(0, "prefill", [FULL, SHORT]), Run(2, "decode", [SHORT, FULL])]
    return replace(Request(7, 2, 3, runs), **changes)  # type: ignore[arg-type]


def test_lines_are_those_of_the_format(tmp_path: Path) -> None:
    out = tmp_path / "t.jsonl"
    trace.write(out, Header("m", 3, source="by hand"), [request()])
    assert out.read_text().splitlines() == [
        '{"type":"header","format":"router-trace","version":1,"model":"m","layers":3,"order":"monotone","reuse":false,'
        '"granularity":"token","kv":"write","router":{"kind":"none"},"source":"by hand"}',
        '{"type":"route","id":0,"steps":"0 1 2"}',
        '{"type":"route","id":1,"steps":"0 2f"}',
        '{"type":"request","id":7,"arrival_s":0.0,"prompt_tokens":2,"output_tokens":3}',
        '{"type":"tokens","request":7,"start":0,"phase":"prefill","routes":[0,1]}',
        '{"type":"tokens","request":7,"start":2,"phase":"decode","routes":[1,0]}',
    ]
    assert not list(tmp_path.glob("*.part"))


def test_gzip_gives_the_same_bytes_twice(tmp_path: Path) -> None:
    one, two = tmp_path / "a.jsonl.gz", tmp_path / "b.jsonl.gz"
    for out in (one, two):
        trace.write(out, Header("m", 3), [request()])
    assert one.read_bytes() == two.read_bytes()
    assert reading.routes(one) == {7: ["0 1 2", "0 2f", "0 2f", "0 1 2"]}


def test_order_and_reuse_follow_from_the_routes(tmp_path: Path) -> None:
    for steps, order, reuse in ([(0, 1, 1), "monotone", True], [(1, 0), "any", False], [(1, 0, 1), "any", True], [(), "monotone", False]):
        route = tuple(Step(layer) for layer in steps)
        out = tmp_path / "t.jsonl"
        trace.write(out, Header("m", 3), [Request(0, 1, 1, [Run(0, "prefill", [route])])])
        header = reading.lines(out)[0]
        assert (header["order"], header["reuse"]) == (order, reuse)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"output_tokens": 5}, "found 4 tokens, expected 6 or 7"),
        ({"output_tokens": 1}, "found token 4, expected at most 3"),
        ({"prompt_tokens": 0}, "at least one"),
        ({"prompt_tokens": 3}, "the end of the prompt at 3"),
        ({"runs": [Run(0, "prefill", [FULL, (Step(3),)])]}, "found layer 3, expected 0 to 2"),
        ({"runs": [Run(1, "prefill", [FULL])]}, "expected position 0"),
        ({"runs": [Run(0, "prefill", [FULL] * 2), Run(0, "decode", [FULL], "recompute")]}, "found decode"),
        ({"runs": [Run(0, "prefill", [FULL] * 2), Run(2, "decode", [FULL], "recompute")]}, "below 2"),
        ({"runs": [Run(0, "prefill", [FULL] * 2, None, [True, True])]}, "accepted"),
        ({"runs": [Run(0, "prefill", [FULL] * 2), Run(2, "decode", [FULL] * 2, "verify", [False, True])]}, "leading trues"),
        ({"runs": [Run(0, "prefill", [FULL] * 2, experts=[((1,),) * 3, ((1,),) * 2])]}, "a list for each step"),
    ],
)
def test_what_readers_refuse_is_refused(broken: dict[str, object], said: str, tmp_path: Path) -> None:
    out = tmp_path / "t.jsonl"
    with pytest.raises(TraceError, match=said):
        trace.write(out, Header("m", 3), [request(**broken)])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (Header("m", 0), "layers"),
        (Header("m", 3, kv="kept"), "kv: found 'kept'"),
        (Header("m", 3, granularity="word"), "granularity"),
        (Header("m", 3, router={"kind": "dice"}), "router.kind: found 'dice', expected one of none, fixed"),
    ],
)
def test_headers_are_checked(header: Header, said: str) -> None:
    with pytest.raises(TraceError, match=said):
        list(trace.lines(header, [request()]))


def test_other_encodings_and_ids_twice_are_refused(tmp_path: Path) -> None:
    for ending in (".parquet", ".zst"):
        with pytest.raises(TraceError, match="trace convert"):
            trace.write(tmp_path / f"t{ending}", Header("m", 3), [request()])
    with pytest.raises(TraceError, match="request 7: id: found it twice"):
        list(trace.lines(Header("m", 3), [request(), request()]))


def test_long_runs_are_cut_and_drafts_are_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(trace, "LINE_NUMBERS", 10)
    experts = [((1, 2), (), (3, 4))] * 9
    runs = [Run(0, "prefill", [FULL] * 9, experts=experts), Run(9, "decode", [FULL] * 30, "draft"), Run(9, "decode", [FULL])]
    out = tmp_path / "t.jsonl"
    trace.write(out, Header("m", 3), [Request(0, 9, 2, runs)])
    found = reading.runs(out)[0]
    assert [run["start"] for run in found] == [0, 2, 4, 6, 8, 9, 9]
    assert [len(run["routes"]) for run in found] == [2, 2, 2, 2, 1, 30, 1]
    assert sum((run.get("experts", []) for run in found), []) == [[list(ids) for ids in token] for token in experts]
