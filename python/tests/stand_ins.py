"""Tensors and modules that look like torch's, so that hooks are tested where torch is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any


class Array:
    """Nested lists with a shape."""

    def __init__(self, values: Any, dtype: str = "torch.float32") -> None:
        self.values, self.dtype = values, dtype
        self.shape: tuple[int, ...] = ()
        while isinstance(values, list):
            self.shape += (len(values),)
            values = values[0] if values else 0

    def tolist(self) -> Any:
        return self.values


def ints(values: Any) -> Array:
    return Array(values, "torch.int64")


def states(*lengths: int) -> Array:
    """Hidden states of some shape."""
    made: Any = 0.0
    for length in reversed(lengths):
        made = [made] * length
    return Array(made)


class Handle:
    def __init__(self, hooks: list[Any], hook: Any) -> None:
        self.hooks, self.hook = hooks, hook

    def remove(self) -> None:
        self.hooks.remove(self.hook)


class Module:
    """A module with hooks. `forward` is what it does."""

    def __init__(self, **parts: Any) -> None:
        self.before: list[tuple[Callable[..., Any], bool]] = []
        self.behind: list[tuple[Callable[..., Any], bool]] = []
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return args[0] if args else kwargs.get("hidden_states")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for hook, with_kwargs in list(self.before):
            hook(self, args, kwargs) if with_kwargs else hook(self, args)
        output = self.forward(*args, **kwargs)
        for hook, with_kwargs in list(self.behind):
            hook(self, args, kwargs, output) if with_kwargs else hook(self, args, output)
        return output

    def register_forward_pre_hook(self, hook: Any, with_kwargs: bool = False) -> Handle:
        self.before.append((hook, with_kwargs))
        return Handle(self.before, self.before[-1])

    def register_forward_hook(self, hook: Any, with_kwargs: bool = False) -> Handle:
        self.behind.append((hook, with_kwargs))
        return Handle(self.behind, self.behind[-1])

    def named_children(self) -> Iterator[tuple[str, Module]]:
        return ((name, part) for name, part in vars(self).items() if isinstance(part, Module))

    def children(self) -> Iterator[Module]:
        return (part for _, part in self.named_children())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        yield prefix, self
        for name, part in self.named_children():
            yield from part.named_modules(f"{prefix}.{name}" if prefix else name)

    def get_submodule(self, path: str) -> Any:
        found: Any = self
        for name in path.split(".") if path else []:
            found = getattr(found, name)
        return found


class ModuleList(Module):
    def __init__(self, modules: list[Any]) -> None:
        super().__init__(**{str(index): module for index, module in enumerate(modules)})
        self.all = modules

    def __len__(self) -> int:
        return len(self.all)

    def __getitem__(self, index: Any) -> Any:
        return self.all[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.all)


class Block(Module):
    """A decoder layer. `skip(positions)` may give fewer of them, or say "a" or "f"."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(self_attn=Module(), mlp=Module(), **parts)
        self.only = "af"

    def forward(self, hidden: Any, **kwargs: Any) -> Any:
        if "a" in self.only:
            hidden = self.self_attn(hidden_states=hidden, **kwargs)
        return self.mlp(hidden) if "f" in self.only else hidden


class Base(Module):
    """A decoder: calls its layers, or what `plan(index)` says: `None` no call, else the columns to hold."""

    def __init__(self, layers: list[Any]) -> None:
        super().__init__(embed_tokens=Module(), layers=ModuleList(layers))
        self.config = SimpleNamespace(num_hidden_layers=len(layers))
        self.plan: Callable[[int], list[int] | None] | None = None
        self.output: Any = SimpleNamespace()

    def forward(self, input_ids: Any = None, attention_mask: Any = None, position_ids: Any = None, cache: Any = None, **kwargs: Any) -> Any:
        self.embed_tokens(input_ids)
        rows, columns = input_ids.shape
        if position_ids is None:
            past = cache.length if cache is not None else 0
            position_ids = ints([list(range(past, past + columns))] * rows)
        for index, layer in enumerate(self.layers[: self.config.num_hidden_layers]):
            held = list(range(columns)) if self.plan is None else self.plan(index)
            if held is None:
                continue
            at = ints([[line[column] for column in held] for line in position_ids.tolist()])
            layer(states(rows, len(held), 4), position_ids=at)
        if cache is not None:
            cache.length += columns
        return self.output


class Cache:
    def __init__(self) -> None:
        self.length = 0

    def get_seq_length(self) -> int:
        return self.length


class Model(Module):
    """A causal language model around a base. `generate` runs a prompt, then a token a pass."""

    def __init__(self, layers: list[Any], **config: Any) -> None:
        base = Base(layers)
        for key, value in config.items():
            setattr(base.config, key, value)
        super().__init__(model=base)
        self.config = base.config
        self.generation_config = SimpleNamespace(eos_token_id=2, pad_token_id=0)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.model(*args, **kwargs)

    def generate(self, input_ids: Any = None, attention_mask: Any = None, new: Any = None, **kwargs: Any) -> Any:
        """`new`: the tokens that each row gets."""
        cache, rows = Cache(), input_ids.tolist()
        mask = attention_mask.tolist() if attention_mask is not None else [[1] * len(row) for row in rows]
        self(input_ids=input_ids, attention_mask=ints(mask), cache=cache)
        for step in range(len(new[0]) - 1):
            mask = [row + [1] for row in mask]
            self(input_ids=ints([[row[step]] for row in new]), attention_mask=ints(mask), cache=cache)
        return ints([row + more for row, more in zip(rows, new)])
