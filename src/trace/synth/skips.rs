//! Tokens that skip layers at random: each on its own, or alike.

use super::tokens::plain;
use super::{Branches, Method, Share};
use crate::rng::{Odds, Stream};
use crate::trace::{Phase, Request, Route, RouteTable, Run, TAKEN_LAYERS, Taken};

/// Which branches a token skips.
#[derive(Clone, Debug)]
struct Skips {
    skip: Odds,
    branches: Branches,
    /// Layers that everybody takes, in pieces of 64 layers, and how many layers the last piece has.
    always: Vec<u64>,
    last: u32,
    dense_prefill: bool,
}

impl Skips {
    fn new(skip: f64, branches: Branches, keep: &[u32], layers: u32, dense_prefill: bool) -> Self {
        let mut always = vec![0; layers.div_ceil(TAKEN_LAYERS) as usize];
        keep.iter().for_each(|&layer| always[(layer / TAKEN_LAYERS) as usize] |= 1 << (layer % TAKEN_LAYERS));
        Skips {
            skip: Odds::new(skip),
            branches,
            always,
            last: (layers - 1) % TAKEN_LAYERS + 1,
            dense_prefill,
        }
    }

    fn pieces(&self) -> usize {
        self.always.len()
    }

    fn layers(&self, piece: usize) -> u32 {
        if piece + 1 == self.pieces() { self.last } else { TAKEN_LAYERS }
    }

    #[inline]
    fn draw(&self, stream: &mut Stream, out: &mut Vec<Taken>) {
        for (piece, &always) in self.always.iter().enumerate() {
            let layers = self.layers(piece);
            let mut runs = || Taken::all(layers).attention & (always | !stream.chances(self.skip, layers));
            let attention = runs();
            let feed_forward = match self.branches {
                Branches::Jointly => attention,
                Branches::Separately => runs(),
            };
            out.push(Taken { attention, feed_forward });
        }
    }

    fn dense(&self, out: &mut Vec<Taken>) {
        out.extend((0..self.pieces()).map(|piece| Taken::all(self.layers(piece))));
    }
}

/// Draws of which some tokens share one.
#[derive(Clone, Debug)]
struct Shared {
    share: Share,
    /// Probability that a token takes the shared route.
    reuse: Odds,
    seed: u64,
    /// Routes shared so far, by what the sharing tokens have in common: tokens of a prompt, generated ones, or all, at the same place.
    known: [Known; 3],
}

/// Makes the routes of tokens that skip: request by request, each from a random stream of its own.
#[derive(Clone, Debug)]
pub struct SkipDraws {
    skips: Skips,
    shared: Option<Shared>,
}

impl SkipDraws {
    /// Those of a method of the kind; `None` of another.
    pub(super) fn new(method: &Method, layers: u32, seed: u64) -> Option<SkipDraws> {
        match method {
            Method::IndependentSkips { skip, branches, keep, dense_prefill, .. } => {
                let skips = Skips::new(*skip, *branches, keep, layers, *dense_prefill);
                Some(SkipDraws { skips, shared: None })
            }
            Method::CorrelatedSkips { skip, correlation, share, branches, keep, dense_prefill, .. } => {
                let skips = Skips::new(*skip, *branches, keep, layers, *dense_prefill);
                // Two tokens are alike where both take the shared route: with the square of this probability.
                let reuse =
                    Odds::new(if *share == Share::Predecessor { *correlation } else { correlation.sqrt() });
                let known = Default::default();
                Some(SkipDraws { skips, shared: Some(Shared { share: *share, reuse, seed, known }) })
            }
            _ => None,
        }
    }

    /// Adds what each token of a request takes, P + G - 1 of them for P prompt and G generated tokens, a piece for every 64 layers of
    /// the pool.
    pub fn draw(&mut self, request: &Request, own: &mut Stream, out: &mut Vec<Taken>) {
        let prompt = request.prompt_tokens;
        let pieces = self.skips.pieces();
        out.reserve((prompt + request.output_tokens) as usize * pieces);
        let begin = out.len();
        // Whether the next tokens take the shared route, 64 at a time.
        let (mut reuses, mut left) = (0u64, 0);
        for position in 0..prompt + request.output_tokens - 1 {
            let SkipDraws { skips, shared } = self;
            let phase = if position < prompt { Phase::Prefill } else { Phase::Decode };
            if phase == Phase::Prefill && skips.dense_prefill {
                skips.dense(out);
                continue;
            }
            let Some(shared) = shared else {
                skips.draw(own, out);
                continue;
            };
            // Those of a dense prompt are nobody's predecessors.
            let first = position == if skips.dense_prefill { prompt } else { 0 };
            let offset = if phase == Phase::Prefill { position } else { position - prompt };
            if left == 0 {
                (reuses, left) = (own.chances(shared.reuse, 64), 64);
            }
            let reused = reuses & 1 == 1;
            (reuses, left) = (reuses >> 1, left - 1);
            match (reused, shared.share) {
                (false, _) => skips.draw(own, out),
                (true, Share::Predecessor) if first => skips.draw(own, out),
                (true, Share::Predecessor) => out.extend_from_within(out.len() - pieces..),
                (true, Share::Step) => out.extend_from_slice(shared.at(Some(phase), offset, skips)),
                (true, Share::Position) => out.extend_from_slice(shared.at(None, position, skips)),
                (true, Share::All) => out.extend_from_slice(shared.at(None, 0, skips)),
            }
        }
        assert!(
            out.len() - begin == (prompt + request.output_tokens - 1) as usize * pieces,
            "a piece is missing"
        );
    }

    /// The runs of a request, their routes in `table`.
    pub(super) fn runs(&mut self, request: &Request, table: &mut RouteTable, own: &mut Stream) -> Vec<Run> {
        let mut taken = Vec::new();
        self.draw(request, own, &mut taken);
        let mut tokens = taken.chunks(self.skips.pieces());
        plain(request, |_| table.intern(tokens.next().map_or_else(Route::default, Taken::route)))
    }
}

/// Routes by place.
#[derive(Clone, Debug, Default)]
struct Known {
    is_known: Vec<bool>,
    taken: Vec<Taken>,
}

impl Shared {
    /// The shared route of this place.
    #[inline]
    fn at(&mut self, phase: Option<Phase>, place: u32, skips: &Skips) -> &[Taken] {
        let (kind, pieces) = (phase.map_or(2, |phase| phase as usize), skips.pieces());
        if !self.known[kind].is_known.get(place as usize).copied().unwrap_or(false) {
            self.draw((phase, place), skips);
        }
        &self.known[kind].taken[place as usize * pieces..][..pieces]
    }

    /// It has a stream of its own, so that it does not depend on who asks first.
    fn draw(&mut self, key: (Option<Phase>, u32), skips: &Skips) {
        let (place, pieces) = (key.1 as usize, skips.pieces());
        let Known { is_known, taken } = &mut self.known[key.0.map_or(2, |phase| phase as usize)];
        if is_known.len() <= place {
            is_known.resize(place + 1, false);
            taken.resize((place + 1) * pieces, Taken::default());
        }
        let mut drawn = Vec::with_capacity(pieces);
        skips.draw(&mut Stream::new(self.seed, &format!("shared route {key:?}")), &mut drawn);
        taken[place * pieces..][..pieces].copy_from_slice(&drawn);
        is_known[place] = true;
    }
}
