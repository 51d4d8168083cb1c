"""Where a model keeps its decoder layers, their branches and their gates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import RecordError

# What published models call the two branches of a layer, and the router of their experts.
ATTENTION = ("self_attn", "attn", "attention", "self_attention", "linear_attn", "mixer", "temporal_block")
FEED_FORWARD = ("mlp", "feed_forward", "ffn", "block_sparse_moe", "moe", "mlp_block", "feedforward")
GATES = ("gate", "router", "wg")


@dataclass
class Found:
    """The parts of a model that are recorded. `config` is that of the text model."""

    model: Any
    base: Any
    config: Any
    layers: list[Any]
    embedding: Any | None


def find(model: Any, layers: Any | None = None) -> Found:
    """The decoder layers of a model, and the module that holds their list: its calls are the passes.

    `layers` is that list where it cannot be found. Raises `RecordError` where there is none, or several would do.
    """
    if hasattr(model, "_orig_mod"):
        raise RecordError("the model is compiled (torch.compile), and compiled calls pass hooks by: record the model that was compiled")
    if not hasattr(model, "named_modules"):
        raise RecordError(f"found {type(model).__name__}, expected a torch module with named_modules")
    config = text_config(model)
    if getattr(config, "is_encoder_decoder", False):
        raise RecordError(f"{type(model).__name__} has an encoder: only models of decoder layers alone can be recorded")
    candidates = [(name, module) for name, module in model.named_modules() if _is_list_of_layers(name, module, config, layers)]
    outer = [
        (name, module) for name, module in candidates if not any(name.startswith(other + ".") for other, _ in candidates if other != name)
    ]
    if len(outer) > 1:
        # Routers may come in a list as long as that of the layers.
        outer = [(name, module) for name, module in outer if any(_is_block(layer) for layer in module)] or outer
    if len(outer) != 1:
        names = ", ".join(name for name, _ in outer) or "no list of modules as long as config.num_hidden_layers"
        raise RecordError(f"{type(model).__name__}: the decoder layers are not clear (found {names}): say layers=model.PATH.TO.LAYERS")
    name, chosen = outer[0]
    base = model.get_submodule(name.rpartition(".")[0]) if "." in name else model
    return Found(model, base, config, list(chosen), _embedding(model, base))


def _is_list_of_layers(name: str, module: Any, config: Any, layers: Any | None) -> bool:
    if layers is not None:
        return module is layers
    depth = getattr(config, "num_hidden_layers", None)
    if not name or type(module).__name__ != "ModuleList" or not len(module):
        return False
    return depth is None or len(module) == depth


def text_config(model: Any) -> Any:
    """The config of the part that reads text, or `None`."""
    config = getattr(model, "config", None)
    get = getattr(config, "get_text_config", None)
    return get() if get is not None else config


def _embedding(model: Any, base: Any) -> Any | None:
    for owner in (base, model):
        get = getattr(owner, "get_input_embeddings", None)
        try:
            if get is not None and (embedding := get()) is not None:
                return embedding
        except NotImplementedError:
            continue
    return next((getattr(base, name) for name in ("embed_tokens", "wte", "embed_in") if hasattr(base, name)), None)


def branches(layer: Any) -> tuple[Any | None, Any | None]:
    """The attention and the feed-forward module of a layer; `None` for each where its name is not known."""
    return _child(layer, ATTENTION), _child(layer, FEED_FORWARD)


def _child(layer: Any, names: tuple[str, ...]) -> Any | None:
    children: list[Any] = [getattr(layer, name, None) for name in names]
    return next((child for child in children if callable(child)), None)


def block_in(layer: Any) -> Any | None:
    """The block that a wrapper carries: the one module inside a layer that has both branches, where the layer itself has not."""
    if None not in branches(layer):
        return None
    inside = [child for child in _below(layer) if None not in branches(child)]
    return inside[0] if len(inside) == 1 else None


def _is_block(layer: Any) -> bool:
    return None not in branches(layer) or block_in(layer) is not None


def _below(module: Any) -> Iterator[Any]:
    """Modules below one, without itself, and without those below a block."""
    for child in module.children():
        yield child
        if None in branches(child):
            yield from _below(child)


def gates(layer: Any) -> list[tuple[str, Any]]:
    """Modules of a layer that choose experts, with their names."""
    found = []
    for name, module in layer.named_modules():
        owner, _, last = name.rpartition(".")
        if last in GATES and owner and _has_experts(layer, owner):
            found.append((name, module))
    return found


def _has_experts(layer: Any, owner: str) -> bool:
    return hasattr(layer.get_submodule(owner), "experts")
