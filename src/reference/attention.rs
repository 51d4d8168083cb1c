//! Attention over the visible entries of a cache.

use super::{Number, expect};

/// Heads of an attention call; `heads / kv_heads` query heads share a key and value head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
}

/// What becomes of scores before the softmax.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    /// What they are multiplied with.
    pub scale: f64,
    /// Then a score s becomes `cap tanh(s / cap)`; `None`: it stays.
    pub cap: Option<f64>,
}

impl Scores {
    /// One over the root of a head's width (Vaswani et al., arXiv 1706.03762, section 3.2.1).
    pub fn plain(head_dim: usize) -> Scores {
        Scores { scale: 1.0 / (head_dim as f64).sqrt(), cap: None }
    }

    /// A bounded score. The hyperbolic tangent is taken of the value: counting numbers do not know it.
    fn bounded<N: Number>(self, score: N) -> N {
        self.cap.map_or(score, |cap| N::constant(cap * libm::tanh(score.value() / cap)))
    }
}

/// Softmax attention. `queries`: `rows x heads x head_dim`. `keys`, `values`: `entries x kv_heads x head_dim`.
/// `visible[row]`: the entries that the row sees, at least one. Result: `rows x heads x head_dim`.
///
/// Prefill, decode, holes and batches of several sequences differ in `visible` alone.
pub fn attention<N: Number>(
    shape: Heads,
    scored: Scores,
    queries: &[N],
    keys: &[N],
    values: &[N],
    visible: &[Vec<u32>],
) -> Vec<N> {
    let Heads { heads, kv_heads, head_dim } = shape;
    assert_eq!(heads % kv_heads, 0, "query heads share key and value heads evenly");
    expect(queries, "queries", &[visible.len(), heads, head_dim]);
    expect(values, "values", &[keys.len()]);
    let scale = N::constant(scored.scale);
    let mut result = Vec::with_capacity(queries.len());
    for (query, entries) in
        queries.chunks_exact(head_dim).zip(visible.iter().flat_map(|row| vec![row; heads]))
    {
        let head = result.len() / head_dim % heads;
        let first = |entry: u32| (entry as usize * kv_heads + head * kv_heads / heads) * head_dim;
        let query: Vec<N> = query.iter().map(|&q| q * scale).collect();
        let scores: Vec<N> = entries
            .iter()
            .map(|&entry| scored.bounded(dot(&query, &keys[first(entry)..][..head_dim])))
            .collect();

        let highest =
            scores.iter().fold(N::constant(f64::NEG_INFINITY), |highest, &score| highest.max(score));
        let weights: Vec<N> = scores.iter().map(|&score| (score - highest).exp()).collect();
        let total = weights.iter().fold(N::zero(), |total, &weight| total + weight);
        for index in 0..head_dim {
            let mut sum = N::zero();
            for (&entry, &weight) in entries.iter().zip(&weights) {
                sum = sum + weight * values[first(entry) + index];
            }
            result.push(sum / total);
        }
    }
    result
}

fn dot<N: Number>(a: &[N], b: &[N]) -> N {
    a.iter().zip(b).fold(N::zero(), |sum, (&a, &b)| sum + a * b)
}

/// What queries at these positions of one sequence see: the entries at no later position. A token that left no entry
/// is a hole: its position is not in `entries`. With a window, only entries of the last so many positions, its own included.
pub fn causal(queries: &[u32], entries: &[u32], window: Option<u32>) -> Vec<Vec<u32>> {
    let near = move |position: u32, entry: u32| window.is_none_or(|window| position - entry < window);
    let seen = |position: u32| {
        (0..).zip(entries).filter(move |&(_, &entry)| entry <= position && near(position, entry))
    };
    queries.iter().map(|&position| seen(position).map(|(index, _)| index).collect()).collect()
}

/// Widths of attention whose keys and values differ, or lie in each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatentHeads {
    /// Query heads.
    pub heads: usize,
    /// Heads of entries.
    pub kv_heads: usize,
    /// Width of a query and a key.
    pub key_dim: usize,
    /// Width of a value.
    pub value_dim: usize,
    /// Whether a value is the first part of its key.
    pub values_in_keys: bool,
}

/// Softmax attention over latent entries (DeepSeek-V2, arXiv 2405.04434, section 2.1). `queries`: `rows x heads x key_dim`.
/// `entries`: `any x kv_heads x key_dim`, each key with its value of `value_dim` behind it unless that lies within. `visible` as in
/// [`attention`]. Result: `rows x heads x value_dim`.
pub fn latent_attention<N: Number>(
    shape: LatentHeads,
    scale: f64,
    queries: &[N],
    entries: &[N],
    visible: &[Vec<u32>],
) -> Vec<N> {
    let LatentHeads { heads, kv_heads, key_dim, value_dim, values_in_keys } = shape;
    expect(queries, "queries", &[visible.len(), heads, key_dim]);
    let (width, value_at) = if values_in_keys { (key_dim, 0) } else { (key_dim + value_dim, key_dim) };
    let scale = N::constant(scale);
    let mut result = Vec::new();
    for (index, query) in queries.chunks_exact(key_dim).enumerate() {
        let (row, head) = (index / heads, index % heads);
        let entry =
            |entry: u32| &entries[(entry as usize * kv_heads + head * kv_heads / heads) * width..][..width];
        let query: Vec<N> = query.iter().map(|&q| q * scale).collect();
        let scores: Vec<N> = visible[row].iter().map(|&at| dot(&query, &entry(at)[..key_dim])).collect();
        let highest =
            scores.iter().fold(N::constant(f64::NEG_INFINITY), |highest, &score| highest.max(score));
        let weights: Vec<N> = scores.iter().map(|&score| (score - highest).exp()).collect();
        let total = weights.iter().fold(N::zero(), |total, &weight| total + weight);
        for value in 0..value_dim {
            let sum = visible[row].iter().zip(&weights);
            let sum = sum.fold(N::zero(), |sum, (&at, &weight)| sum + weight * entry(at)[value_at + value]);
            result.push(sum / total);
        }
    }
    result
}
