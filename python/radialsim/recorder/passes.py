"""One pass of a model: which tokens it held, and which layers ran for which of them.

Plain Python: positions and masks come as lists.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import RecordError
from ..trace import Experts, Route, Step
from .pieces import Piece, Sequence

# Tokens of a pass, row by row: true where a row's token at this column takes part.
Mask = list[list[bool]]


@dataclass
class Visit:
    """One call of a layer. Masks are `None` where the call held every token of the pass."""

    layer: int
    attention: Mask | None = None
    feed_forward: Mask | None = None
    # Ids by row and column, for tokens that the call held.
    experts: dict[tuple[int, int], tuple[int, ...]] | None = None

    def everyone(self) -> bool:
        return self.attention is None and self.feed_forward is None and self.experts is None

    def step(self, row: int, column: int) -> Step | None:
        """What a token takes of the layer."""
        attention = self.attention is None or self.attention[row][column]
        feed_forward = self.feed_forward is None or self.feed_forward[row][column]
        if attention and feed_forward:
            return Step(self.layer)
        return Step(self.layer, "a" if attention else "f") if attention or feed_forward else None


@dataclass
class Pass:
    """Tokens in rows and columns. `positions[row][column]` is `None` for padding."""

    sequences: list[Sequence]
    positions: list[list[int | None]]
    draft: bool = False
    visits: list[Visit] = field(default_factory=list[Visit])

    @property
    def rows(self) -> int:
        return len(self.positions)

    @property
    def columns(self) -> int:
        return len(self.positions[0])

    def check(self) -> None:
        """Raises `RecordError` where the positions of a row do not follow each other."""
        for sequence, row in zip(self.sequences, self.positions):
            real = [position for position in row if position is not None]
            for before, after in zip(real, real[1:]):
                if after != before + 1:
                    raise RecordError(
                        f"request {sequence.id}: position {after} stands behind {before} in one pass: several texts packed into a row, and "
                        "trees of drafts, cannot be recorded. Give each text a row of its own"
                    )

    def where(self, layer: int, positions: list[list[int]]) -> Mask:
        """The tokens at these positions of each row: for calls of a layer that hold fewer tokens than the pass."""
        mask = [[False] * self.columns for _ in self.positions]
        for row, (held, known) in enumerate(zip(positions, self.positions)):
            columns = {position: column for column, position in enumerate(known) if position is not None}
            for position in held:
                if position in columns:
                    mask[row][columns[position]] = True
                elif None not in known:
                    raise RecordError(
                        f"layer {layer} was called with position {position}, which the pass does not hold "
                        f"(request {self.sequences[row].id}: {known[0]} to {known[-1]})"
                    )
        return mask

    def cells(self, positions: list[list[int]]) -> list[tuple[int, int]]:
        """The row and column of each of these positions, row by row; column -1 for padding."""
        columns = [{position: column for column, position in enumerate(row)} for row in self.positions]
        return [(row, columns[row].get(position, -1)) for row, line in enumerate(positions) for position in line]

    def full(self) -> Mask:
        return [[position is not None for position in row] for row in self.positions]

    def close(self) -> None:
        """Gives each sequence the tokens that it had in this pass."""
        shared: Route | None = None
        if all(visit.everyone() for visit in self.visits):
            shared = tuple(Step(visit.layer) for visit in self.visits)
        with_experts = any(visit.experts is not None for visit in self.visits)
        for row, (sequence, positions) in enumerate(zip(self.sequences, self.positions)):
            columns = [column for column, position in enumerate(positions) if position is not None]
            if not columns:
                continue
            start = positions[columns[0]]
            assert start is not None
            if shared is not None:
                sequence.pieces.append(Piece(start, [shared] * len(columns), None, self.draft))
                continue
            taken = [self.taken(row, column) for column in columns]
            experts = [each for _, each in taken] if with_experts else None
            sequence.pieces.append(Piece(start, [route for route, _ in taken], experts, self.draft))

    def taken(self, row: int, column: int) -> tuple[Route, Experts]:
        """The route of one token, and the experts of each step."""
        steps: list[Step] = []
        experts: list[tuple[int, ...]] = []
        for visit in self.visits:
            step = visit.step(row, column)
            if step is not None:
                steps.append(step)
                ids = visit.experts.get((row, column), ()) if visit.experts else ()
                experts.append(ids if step.branch != "a" else ())
        return tuple(steps), tuple(experts)


@dataclass
class FreePass:
    """A pass of a loop that calls the layers itself: no module holds it together, and tokens are known by their positions alone."""

    sequence: Sequence
    layers: int
    rows: int = 1
    routes: dict[int, list[Step]] = field(default_factory=dict[int, list[Step]])

    def visit(self, layer: int, positions: list[int]) -> None:
        for position in positions:
            self.routes.setdefault(position, []).append(Step(layer))

    def close(self) -> None:
        """Gives the sequence its tokens. A pass that does not reach the last layer is a draft: a later one carries it on."""
        if not self.routes:
            return
        start, end = min(self.routes), max(self.routes) + 1
        if len(self.routes) != end - start:
            raise RecordError(f"request {self.sequence.id}: a pass holds some of the positions {start} to {end - 1} and not the others")
        routes = [tuple(self.routes[position]) for position in range(start, end)]
        draft = all(step.layer < self.layers - 1 for route in routes for step in route)
        self.sequence.pieces.append(Piece(start, routes, None, draft))
