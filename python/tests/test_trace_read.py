"""Traces read back in Python: those that are shipped, those that the recorder writes, and what is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from radialsim import Trace, TraceError
from radialsim.trace import Header, Request, Run, Step

ROOT = Path(__file__).parent.parent.parent
FIXTURES = sorted((Path(__file__).parent / "fixtures").glob("*.jsonl.gz"))
SHIPPED = ROOT / "examples" / "traces" / "smollm2-skip25.jsonl"


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.name)
def test_what_was_recorded_is_read_and_written_to_the_same_bytes(path: Path, tmp_path: Path) -> None:
    trace = Trace.read(path)
    trace.write(tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == gzip.decompress(path.read_bytes())
    assert Trace.read(tmp_path / "again.jsonl") == trace


def test_a_shipped_trace_has_its_tokens(tmp_path: Path) -> None:
    trace = Trace.read(SHIPPED)
    assert (trace.header.layers, len(trace.requests)) == (30, 12)
    for request in trace.requests:
        # The last token was fed back where the text ended by itself.
        assert sum(len(run.routes) for run in request.runs) + 1 - request.prompt_tokens - request.output_tokens in (0, 1)
    trace.write(tmp_path / "again.jsonl.gz")
    assert Trace.read(tmp_path / "again.jsonl.gz") == trace


HEADER = Header("m", 3)
REQUEST = Request(0, 1, 1, [Run(0, "prefill", [(Step(0), Step(2, "a"))])])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"version":1', '"version":2', ":1: expected the header of a router-trace of version 1"),
        ('"model":"m"', '"modle":"m"', ":1: modle: found a key that has no place here"),
        ('"steps":"0 2a"', '"steps":"0 2f@0.5"', ":2: steps: found 2f@0.5"),
        ('"steps":"0 2a"', '"steps":"0 7"', "found layer 7, expected 0 to 2"),
        ('"type":"request"', '"type":"reqest"', ":3: type: found 'reqest'"),
        ('"routes":[0]', '"routes":[9]', ":4: expected the key or id 9"),
        ('"start":0', '"start":1', "expected position 0"),
        ('"phase":"prefill"', '"phase":"prefill","prefix":[1]', ":4: prefix: found a key"),
        ('{"type":"tokens"', '["type"', ":4: "),
    ],
)
def test_what_is_no_trace_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = tmp_path / "bad.jsonl"
    Trace(HEADER, [REQUEST]).write(path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(TraceError) as raised:
        Trace.read(path)
    assert said in str(raised.value)


def test_files_of_other_kinds_are_named(tmp_path: Path) -> None:
    for name, content, said in [
        ("a.parquet", b"", "radialsim trace convert"),
        ("a.jsonl", b"", "found nothing"),
        ("a.jsonl", b"\xff\xfe", "UTF-8"),
        ("a.jsonl.gz", b"no gzip", "expected a trace"),
        ("a.jsonl.gz", gzip.compress(b"x" * 1000)[:20], "expected a trace"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(TraceError, match=said):
            Trace.read(tmp_path / name)
