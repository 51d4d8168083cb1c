"""Records a model that computes every layer and masks what comes out: `decide` reads the mask where the model keeps it.

The model here is a stack of gated layers of PyTorch alone; yours takes its place.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

import radialsim


class Gated(torch.nn.Module):
    """A layer that a router switches off for a token. `taken` is its last decision, of (rows, columns)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.router = torch.nn.Linear(width, 1)
        self.work = torch.nn.Linear(width, width)
        self.taken = torch.zeros(0)

    def forward(self, stream: torch.Tensor) -> torch.Tensor:
        self.taken = self.router(stream).squeeze(-1) > 0
        return stream + self.work(stream) * self.taken.unsqueeze(-1)


class Decoder(torch.nn.Module):
    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        self.embed_tokens = torch.nn.Embedding(100, width)
        self.layers = torch.nn.ModuleList(Gated(width) for _ in range(layers))

    def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        stream: torch.Tensor = self.embed_tokens(input_ids)
        for layer in self.layers:
            stream = layer(stream)
        return stream


def decide(layer: int, module: Any, args: tuple[Any, ...], output: Any) -> Any:
    return module.taken


def main(out: str) -> None:
    torch.manual_seed(0)
    model, router = Decoder(layers=8, width=16), {"kind": "mlp", "when": "per_layer", "hidden": 1}
    with radialsim.record(model, out, decide=decide, layers=model.layers, router=router, name="gated") as recording:
        model(torch.arange(10).unsqueeze(0), torch.arange(10).unsqueeze(0))
    for position, route in enumerate(recording.requests[0].runs[0].routes):
        print(position, " ".join(step.text() for step in route))


if __name__ == "__main__":
    main(sys.argv[1])
