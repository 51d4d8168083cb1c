//! Tokens that skip layers at random: each on its own, or alike.

use super::tokens::plain;
use super::{Branches, Method, Share};
use crate::rng::Stream;
use crate::trace::{Phase, Request, Route, RouteTable, Run, TAKEN_LAYERS, Taken};

/// Which branches a token skips.
#[derive(Clone, Debug)]
struct Skips {
    skip: f64,
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
        Skips { skip, branches, always, last: (layers - 1) % TAKEN_LAYERS + 1, dense_prefill }
    }

    fn pieces(&self) -> usize {
        self.always.len()
    }

    fn layers(&self, piece: usize) -> u32 {
        if piece + 1 == self.pieces() { self.last } else { TAKEN_LAYERS }
    }

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
    reuse: f64,
    seed: u64,
    /// Routes shared so far, by what the sharing tokens have in common: tokens of a prompt, generated ones, or all, at the same place.
    known: [Vec<Option<Box<[Taken]>>>; 3],
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
                let reuse = if *share == Share::Predecessor { *correlation } else { correlation.sqrt() };
                let known = std::array::from_fn(|_| Vec::new());
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
            match (own.chance(shared.reuse), shared.share) {
                (false, _) => skips.draw(own, out),
                (true, Share::Predecessor) if first => skips.draw(own, out),
                (true, Share::Predecessor) => out.extend_from_within(out.len() - pieces..),
                (true, Share::Step) => out.extend(shared.at(Some(phase), offset, skips)),
                (true, Share::Position) => out.extend(shared.at(None, position, skips)),
                (true, Share::All) => out.extend(shared.at(None, 0, skips)),
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

impl Shared {
    /// The shared route of this place. It has a stream of its own, so that it does not depend on who asks first.
    fn at(&mut self, phase: Option<Phase>, place: u32, skips: &Skips) -> &[Taken] {
        let known = &mut self.known[phase.map_or(2, |phase| phase as usize)];
        if known.len() <= place as usize {
            known.resize(place as usize + 1, None);
        }
        known[place as usize].get_or_insert_with(|| {
            let key = (phase, place);
            let mut out = Vec::with_capacity(skips.pieces());
            skips.draw(&mut Stream::new(self.seed, &format!("shared route {key:?}")), &mut out);
            out.into()
        })
    }
}
