"""What ran of one request, pass by pass, made into the runs of a trace: prompt, generated tokens, drafts, verified tokens.

Plain Python: tokens come as positions and routes, so that all of this is tested without a model.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ..errors import RecordError
from ..trace import Experts, Request, Route, Run


@dataclass
class Piece:
    """Tokens of one request that one pass held, from position `start` on. `draft`: they left early, and may be verified later."""

    start: int
    routes: list[Route]
    experts: list[Experts] | None = None
    draft: bool = False

    @property
    def end(self) -> int:
        return self.start + len(self.routes)

    def part(self, low: int, high: int) -> Piece | None:
        """Its tokens from position `low` to before `high`, or `None` where it has none there."""
        low, high = max(low, self.start), min(high, self.end)
        if low >= high:
            return None
        cut = slice(low - self.start, high - self.start)
        return Piece(low, self.routes[cut], self.experts[cut] if self.experts else None, self.draft)


@dataclass
class Sequence:
    """One request while it is recorded. Counts are `None` until they are known."""

    id: int
    arrival_s: float = 0.0
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    # Whether the engine said that it verifies drafted tokens.
    speculative: bool = False
    pieces: list[Piece] = field(default_factory=list[Piece])

    def finish(self) -> Request | None:
        """The request with its runs, or `None` where nothing of it ran. Raises `RecordError` for what a trace cannot say."""
        pieces = _resolved(self.pieces)
        if not pieces:
            return None
        prompt = self.prompt_tokens if self.prompt_tokens is not None else _prompt_of(pieces)
        runs = _Runs(self.id, prompt, self.output_tokens, pieces, self.speculative).make()
        output = self.output_tokens if self.output_tokens is not None else max(1, _frontier(runs) - prompt + 1)
        return Request(self.id, prompt, output, runs, self.arrival_s)


def _resolved(pieces: list[Piece]) -> list[Piece]:
    """Tokens that left early are drafts where a later pass holds their positions again; else they left for good."""
    resolved, lowest = [], 1 << 62
    for piece in reversed(pieces):
        resolved.append(replace(piece, draft=piece.draft and lowest < piece.end))
        lowest = min(lowest, piece.start)
    return resolved[::-1]


def _prompt_of(pieces: list[Piece]) -> int:
    """Where nobody says how long the prompt is: the leading passes that hold several tokens, of which all stayed."""
    if pieces[0].draft:
        # The draft of a prompt ran before anything else, and held the prompt alone.
        return pieces[0].end
    end = pieces[0].end
    for piece, following in zip(pieces[1:], pieces[2:] + [None]):
        stays = following is None or following.start == piece.end
        if piece.draft or len(piece.routes) == 1 or piece.start != end or not stays:
            break
        end = piece.end
    return end


def _frontier(runs: list[Run]) -> int:
    kept = (sum(run.accepted) if run.accepted is not None else len(run.routes) for run in runs if _counts(run))
    return sum(kept)


def _counts(run: Run) -> bool:
    return run.role in (None, "verify")


class _Runs:
    """Makes the runs of one request."""

    def __init__(self, id: int, prompt: int, output: int | None, pieces: list[Piece], speculative: bool) -> None:
        self.id, self.prompt = id, prompt
        # The last token is sampled and not fed back: so many positions have a route.
        self.last = None if output is None else prompt + output - 1
        self.pieces = pieces
        whole = [piece for piece in pieces if not piece.draft]
        overlap = any(later.start < piece.end for piece, later in zip(whole, whole[1:]) if piece.end > prompt)
        self.speculative = speculative or overlap or len(whole) < len(pieces)
        self.runs: list[Run] = []
        self.frontier = 0

    def make(self) -> list[Run]:
        drafts: list[Piece] = []
        for index, piece in enumerate(self.pieces):
            if piece.draft:
                drafts.append(piece)
                continue
            if self.last is not None and piece.start >= self.last and not drafts:
                break  # the engine ran on for other rows of its batch
            if piece.start != self.frontier:
                raise self.misplaced(piece)
            following = next((later for later in self.pieces[index + 1 :] if not later.draft), None)
            self.round(drafts, piece, None if following is None else following.start)
            drafts = []
        return self.runs

    def misplaced(self, piece: Piece) -> RecordError:
        if piece.start > self.frontier:
            return RecordError(
                f"request {self.id}: a pass starts at position {piece.start}, but only positions below {self.frontier} ran in this "
                "recording: begin recordings with an empty cache"
            )
        return RecordError(
            f"request {self.id}: positions {piece.start} to {piece.end - 1} ran again after position {self.frontier - 1}: a trace has "
            "each position once. Record with the KV cache (use_cache=True) and without methods that run a text several times"
        )

    def round(self, drafts: list[Piece], piece: Piece, following: int | None) -> None:
        """A pass that counts, with the drafts before it. `following`: where the next such pass starts."""
        ahead = [part for draft in drafts if (part := draft.part(0, self.prompt)) is not None]
        head = piece.part(self.frontier, self.prompt)
        if head is not None:
            head, ahead = _joined(head, ahead)
            self.plain(head)
        for draft in ahead + [part for draft in drafts if (part := draft.part(self.prompt, self.frontier)) is not None]:
            self.put(draft, "recompute")
        self.drafted([part for draft in drafts if (part := draft.part(max(self.frontier, self.prompt), 1 << 62)) is not None])
        rest = piece.part(self.frontier, 1 << 62)
        if rest is None:
            return
        if len(rest.routes) == 1 and not drafts and head is None:
            self.plain(rest)
            return
        if not self.speculative:
            raise RecordError(
                f"request {self.id}: a pass holds positions {rest.start} to {rest.end - 1} behind a prompt of {self.prompt} tokens: a request "
                "has one prompt. Give each turn of a conversation an empty cache, so that it becomes a request of its own"
            )
        # Behind the prompt, the first verified token was sampled by the model itself and stays in any case. Where nobody says what
        # came after the last pass, that one alone is certain.
        end = following if following is not None else self.last
        certain = 1 if head is None else 0
        self.verified(rest, certain if end is None else end - rest.start)

    def drafted(self, drafts: list[Piece]) -> None:
        if not drafts:
            return
        whole = Piece(drafts[0].start, [], [] if drafts[0].experts is not None else None, True)
        for draft in drafts:
            if draft.start != whole.end:
                raise RecordError(
                    f"request {self.id}: drafts at positions {whole.start} to {whole.end - 1}, then at {draft.start}: only drafts of one row "
                    "of tokens can be recorded, no trees"
                )
            whole.routes += draft.routes
            if whole.experts is not None and draft.experts is not None:
                whole.experts += draft.experts
        if whole.start != self.frontier:
            raise RecordError(f"request {self.id}: drafts start at position {whole.start}, expected {self.frontier}")
        self.put(whole, "draft")

    def verified(self, rest: Piece, kept: int) -> None:
        kept = max(0, min(kept, len(rest.routes)))
        accepted = [index < kept for index in range(len(rest.routes))]
        self.runs.append(Run(rest.start, "decode", rest.routes, "verify", accepted, rest.experts))
        self.frontier += kept

    def put(self, piece: Piece, role: str) -> None:
        phase = "prefill" if piece.start < self.prompt else "decode"
        self.runs.append(Run(piece.start, phase, piece.routes, role, None, piece.experts))

    def plain(self, piece: Piece) -> None:
        """Tokens that stay; those that follow the run before them join it."""
        phase = "prefill" if piece.start < self.prompt else "decode"
        before = self.runs[-1] if self.runs else None
        self.frontier += len(piece.routes)
        if before is not None and before.role is None and before.phase == phase and before.end == piece.start:
            before.routes += piece.routes
            if before.experts is not None and piece.experts is not None:
                before.experts += piece.experts
            return
        experts = None if piece.experts is None else list(piece.experts)
        self.runs.append(Run(piece.start, phase, list(piece.routes), None, None, experts))


def _joined(head: Piece, ahead: list[Piece]) -> tuple[Piece, list[Piece]]:
    """Prompt tokens that a draft began and this pass carried on (no layer in both) took one route; else the draft ran beside it."""
    routes, experts = list(head.routes), None if head.experts is None else list(head.experts)
    for draft in ahead:
        if draft.start < head.start or draft.end > head.end:
            return head, ahead
        for index, begun in enumerate(draft.routes, draft.start - head.start):
            if {step.layer for step in begun} & {step.layer for step in routes[index]}:
                return head, ahead
            routes[index] = begun + routes[index]
            if experts is not None and draft.experts is not None:
                experts[index] = draft.experts[index - draft.start + head.start] + experts[index]
    return Piece(head.start, routes, experts), []
