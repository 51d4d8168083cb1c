"""Hooks on stand-in modules: passes, skips, batches, and what is refused by name."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import reading
from stand_ins import Base, Block, Cache, Model, Module, ModuleList, ints, states

import radialsim
from radialsim import RecordError


def model(layers: int = 4, **config: Any) -> Model:
    return Model([Block() for _ in range(layers)], **config)


def prompt(*rows: list[int]) -> dict[str, Any]:
    """Rows of tokens and their mask; 0 is padding."""
    return {"input_ids": ints(list(rows)), "attention_mask": ints([[int(token != 0) for token in row] for row in rows])}


def test_a_generation_with_left_padding_and_rows_that_end_at_different_times(tmp_path: Path) -> None:
    out, dense = tmp_path / "t.jsonl", "0 1 2 3"
    it = model()
    with radialsim.record(it, out) as rec:
        it.generate(**prompt([0, 0, 5, 6], [7, 8, 9, 5]), new=[[11, 2, 0, 0], [12, 13, 14, 15]])
    assert reading.counts(out) == {0: (2, 2), 1: (4, 4)}
    assert reading.routes(out) == {0: [dense] * 3, 1: [dense] * 7}
    assert rec.requests[0].prompt_tokens == 2
    header = reading.lines(out)[0]
    assert (header["kv"], header["router"], header["reuse"], header["order"]) == ("write", {"kind": "none"}, False, "monotone")


def test_hooks_are_gone_afterwards(tmp_path: Path) -> None:
    it = model()
    with radialsim.record(it, tmp_path / "t.jsonl"):
        it.generate(**prompt([5, 6]), new=[[7, 8]])
    assert all(not part.before and not part.behind for _, part in it.named_modules())
    assert "generate" not in vars(it)
    with pytest.raises(ZeroDivisionError), radialsim.record(it, tmp_path / "u.jsonl"):
        raise ZeroDivisionError
    assert all(not part.before and not part.behind for _, part in it.named_modules())
    assert [path.name for path in tmp_path.iterdir()] == ["t.jsonl"], "a run that failed leaves no file"


def test_a_layer_that_is_not_called_is_a_skip(tmp_path: Path) -> None:
    it, out = model(), tmp_path / "t.jsonl"
    it.model.plan = lambda index: None if index == 2 else [0]
    with radialsim.record(it, out):
        it(**prompt([5]), cache=Cache())
    assert reading.routes(out) == {0: ["0 1 3"]}
    header = reading.lines(out)[0]
    assert header["kv"] == "none", "a layer that is not called leaves no entry"
    assert header["source"].endswith("what decided about the routes is not known and costs nothing here")


def test_fewer_tokens_of_a_layer_are_told_by_their_positions(tmp_path: Path) -> None:
    it, out = model(), tmp_path / "t.jsonl"
    it.model.plan = lambda index: {1: [0, 2], 3: [1]}.get(index, [0, 1, 2])
    with radialsim.record(it, out):
        it(**prompt([5, 6, 7]), cache=Cache())
    assert reading.routes(out) == {0: ["0 1 2", "0 2 3", "0 1 2"]}


def test_branches_that_are_not_called(tmp_path: Path) -> None:
    it, out = model(), tmp_path / "t.jsonl"
    for layer, only in zip(it.model.layers, ("af", "a", "f", "")):
        layer.only = only
    with radialsim.record(it, out):
        it(**prompt([5, 6]), cache=Cache())
    assert reading.routes(out) == {0: ["0 1a 2f"] * 2}


def test_a_layer_that_runs_twice(tmp_path: Path) -> None:
    it, out = model(), tmp_path / "t.jsonl"
    it.model.layers.all.insert(2, it.model.layers[1])
    it.config.num_hidden_layers = 5
    layers = it.model.layers
    it.model.layers.all = layers.all[:2] + layers.all[3:]
    base = it.model
    calls = [0, 1, 1, 3]

    def forward(input_ids: Any = None, position_ids: Any = None, **kwargs: Any) -> Any:
        for index in calls:
            base.layers[index](states(1, 1, 4), position_ids=ints([[0]]))
        return SimpleNamespace()

    base.forward = forward  # type: ignore[method-assign]
    it.config.num_hidden_layers = 4
    with radialsim.record(it, out):
        it(input_ids=ints([[5]]))
    assert reading.routes(out) == {0: ["0 1 1 3"]}
    assert reading.lines(out)[0]["reuse"] is True


def test_loops_without_generate_are_told_by_cache_and_position(tmp_path: Path) -> None:
    it, out = model(), tmp_path / "t.jsonl"
    one, two = Cache(), Cache()
    with radialsim.record(it, out):
        it.model.output = SimpleNamespace(cache=one)
        it(input_ids=ints([[5, 6, 7]]), cache=one)
        it.model.output = SimpleNamespace(cache=two)
        it(input_ids=ints([[5, 6]]), cache=two)
        it.model.output = SimpleNamespace(cache=one)
        it(input_ids=ints([[8]]), cache=one)
        it.model.output = SimpleNamespace(cache=two)
        it(input_ids=ints([[8]]), cache=two)
        it(input_ids=ints([[9]]), cache=two)
    assert reading.counts(out) == {0: (3, 2), 1: (2, 3)}


def test_right_padding_is_no_token(tmp_path: Path) -> None:
    it, out = model(), tmp_path / "t.jsonl"
    with radialsim.record(it, out):
        it(**prompt([5, 6, 0, 0], [7, 8, 9, 5]))
    assert reading.counts(out) == {0: (2, 1), 1: (4, 1)}


def test_wrappers_that_call_their_block_or_not(tmp_path: Path) -> None:
    class Wrapper(Module):
        def forward(self, hidden: Any, **kwargs: Any) -> Any:
            at = kwargs["position_ids"].tolist()[0]
            taken = [position for position in at if position % 2 == self.parity]  # type: ignore[attr-defined]
            return self.block(states(1, len(taken), 4), position_ids=ints([taken])) if taken else hidden  # type: ignore[attr-defined]

    it, out = Model([Wrapper(block=Block(), parity=index % 2) for index in range(3)]), tmp_path / "t.jsonl"
    with radialsim.record(it, out):
        it(**prompt([5, 6, 7]), cache=Cache())
    assert reading.routes(out) == {0: ["0 2", "1", "0 2"]}


def test_decide_says_who_took_a_layer(tmp_path: Path) -> None:
    it, out = model(3), tmp_path / "t.jsonl"

    def decide(layer: int, module: Any, args: Any, output: Any) -> Any:
        assert module is it.model.layers[layer] and args[0].shape == (1, 3, 4)
        if layer == 0:
            return None
        mask = ints([[1, 0, 1]])
        return mask if layer == 1 else (ints([[1, 1, 0]]), ints([[0, 1, 0]]))

    with radialsim.record(it, out, decide=decide, router={"kind": "mlp", "when": "per_layer", "hidden": 8}):
        it(**prompt([5, 6, 7]), cache=Cache())
    assert reading.routes(out) == {0: ["0 1 2a", "0 2", "0 1"]}
    header = reading.lines(out)[0]
    assert header["kv"] == "project_only", "a layer that was called wrote its keys and values"
    assert header["router"] == {"kind": "mlp", "when": "per_layer", "hidden": 8}


def test_decide_and_calls_that_are_missing_need_a_word_on_the_cache(tmp_path: Path) -> None:
    for kv, said in ((None, "say with kv= what skipped layers leave"), ("none", None)):
        it = model(3)
        it.model.plan = lambda index: None if index == 2 else [0, 1]
        recording = radialsim.record(it, tmp_path / "t.jsonl", decide=lambda *_: ints([[1, 0]]), kv=kv)
        if said is None:
            with recording:
                it(**prompt([5, 6]), cache=Cache())
            continue
        with pytest.raises(RecordError, match=said), recording:
            it(**prompt([5, 6]), cache=Cache())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_beams": 4}, "num_beams=4.*beam search"),
        ({"penalty_alpha": 0.6}, "contrastive search"),
        ({"guidance_scale": 1.5}, "a second time without its prompt"),
        ({"custom_generate": "x"}, "custom loop"),
        ({"assistant_model": object()}, "drafts of a second model"),
        ({"use_cache": False}, "each pass runs all positions again"),
    ],
)
def test_methods_that_would_be_recorded_wrongly(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    it = model()
    with pytest.raises(RecordError, match=said), radialsim.record(it, tmp_path / "t.jsonl"):
        it.generate(**prompt([5, 6]), new=[[7, 8]], **options)
    it.generation_config = SimpleNamespace(**{**vars(it.generation_config), **options})
    if "assistant_model" not in options:
        with pytest.raises(RecordError, match=said), radialsim.record(it, tmp_path / "t.jsonl"):
            it.generate(**prompt([5, 6]), new=[[7, 8]])
    assert not list(tmp_path.iterdir())


def test_caches_that_compile_are_refused_on_devices(tmp_path: Path) -> None:
    it = model()
    asked = {**prompt([5, 6]), "new": [[7, 8]], "cache_implementation": "static"}
    with radialsim.record(it, tmp_path / "t.jsonl"):
        it.generate(**asked)
    it.device = SimpleNamespace(type="cuda")  # type: ignore[attr-defined]
    with (
        pytest.raises(RecordError, match="compiles passes on this device .cuda., .* disable_compile=True"),
        radialsim.record(it, tmp_path / "t.jsonl"),
    ):
        it.generate(**asked)
    with radialsim.record(it, tmp_path / "t.jsonl") as recording:
        it.generate(**asked, disable_compile=True)
        with pytest.raises(RecordError, match="no loop of your own ran"):
            recording.end_request(3)


def test_rows_that_end_by_a_text_are_refused_in_batches(tmp_path: Path) -> None:
    it, out = model(), tmp_path / "t.jsonl"
    with pytest.raises(RecordError, match="generate with stop_strings and 2 rows"), radialsim.record(it, out):
        it.generate(**prompt([5, 6], [7, 8]), new=[[7, 0], [8, 9]], stop_strings=["x"])
    with radialsim.record(it, out):
        it.generate(**prompt([5, 6]), new=[[7, 0]], stop_strings=["x"])
    assert reading.counts(out) == {0: (2, 2)}, "a padding token that was generated counts"


def test_passes_that_would_be_recorded_wrongly(tmp_path: Path) -> None:
    def refused(said: str, run: Any, it: Any = None, **options: Any) -> None:
        it = it or model()
        with pytest.raises(RecordError, match=said), radialsim.record(it, tmp_path / "t.jsonl", **options):
            run(it)

    packed = {"input_ids": ints([[5, 6, 7, 8]]), "position_ids": ints([[0, 1, 0, 1]])}
    refused("several texts packed", lambda it: it(**packed))
    refused("position_ids say 0, and 2 tokens", lambda it: it(**packed, attention_mask=ints([[1] * 4])))
    refused("no pass of 1 rows before", lambda it: it(input_ids=ints([[5]]), position_ids=ints([[4]])))
    refused("nothing ran", lambda it: None)
    refused("found no input_ids", lambda it: it())
    refused("layer 1: found no hidden states", lambda it: it.model.layers[1](5))
    refused("called outside a pass", lambda it: it.model.layers[1](states(1, 2, 4)))
    refused(
        "outside its layer",
        lambda it: (setattr(it.model, "forward", lambda input_ids: it.model.layers[1].mlp(states(1, 1, 4))), it(input_ids=ints([[5]]))),
    )

    def one_row(it: Any) -> None:
        it.model.forward = lambda input_ids: it.model.layers[1](states(1, 2, 4), position_ids=ints([[0, 1]]))
        it(input_ids=ints([[5, 6], [7, 8]]))

    refused("called with .1, 2. of 2 rows of 2 tokens", one_row)

    def fewer_in_a_branch(it: Any) -> None:
        it.model.layers[1].forward = lambda hidden, **_: it.model.layers[1].mlp(states(1, 1, 4))
        it(input_ids=ints([[5, 6]]))

    refused("feed_forward of layer 1 was called with 1 of the layer's 2 tokens", fewer_in_a_branch)
    refused("expected one value a token: .1, 2.", lambda it: it(input_ids=ints([[5, 6]])), decide=lambda *_: ints([[1, 1, 0]]))


def test_models_that_cannot_be_recorded(tmp_path: Path) -> None:
    out = tmp_path / "t.jsonl"
    with pytest.raises(RecordError, match="expected a torch module"):
        radialsim.record(object(), out)
    with pytest.raises(RecordError, match="has an encoder"):
        radialsim.record(model(is_encoder_decoder=True), out)
    with pytest.raises(RecordError, match="no list of modules as long as config.num_hidden_layers"):
        radialsim.record(model(2, num_hidden_layers=3), out)
    with pytest.raises(RecordError, match="torch.compile"):
        compiled = model()
        compiled._orig_mod = compiled.model  # type: ignore[attr-defined]
        radialsim.record(compiled, out)
    twice = Module(a=Base([Block(), Block()]), b=Base([Block(), Block()]))
    with pytest.raises(RecordError, match="found a.layers, b.layers"):
        radialsim.record(twice, out)
    assert len(radialsim.record(twice, out, layers=twice.a.layers).session.found.layers) == 2  # type: ignore[attr-defined]
    with pytest.raises(RecordError, match="no gate"), radialsim.record(model(), out, experts=True):
        pass


def test_keywords_are_checked(tmp_path: Path) -> None:
    for words, said in (({"kv": "kept"}, "kv"), ({"router": {}}, "router: kind"), ({"arrivals": "now"}, "arrivals")):
        with pytest.raises(ValueError, match=said):
            radialsim.record(model(), tmp_path / "t.jsonl", **words)  # type: ignore[arg-type]
    with pytest.raises(RecordError, match="trace convert"):
        radialsim.record(model(), tmp_path / "t.parquet")


def test_arrivals_of_the_clock_rise(tmp_path: Path) -> None:
    it, out = model(), tmp_path / "t.jsonl"
    with radialsim.record(it, out, arrivals="clock"):
        for _ in range(2):
            it.generate(**prompt([5, 6]), new=[[7, 8]])
    first, second = (line["arrival_s"] for line in reading.lines(out) if line["type"] == "request")
    assert 0 <= first <= second < 60


def test_lists_inside_layers_are_no_layers() -> None:
    inner = Block(experts=ModuleList([Module(), Module()]))
    found = radialsim.record(Model([inner, Block()]), "unused.jsonl").session.found
    assert found.layers[0] is inner
