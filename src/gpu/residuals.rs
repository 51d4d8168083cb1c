//! What each branch adds to the residual stream, token by token and layer by layer: the profile by which Radial Networks were
//! argued for (arXiv 2404.04900, section 3).

use super::pass_io::{BranchRecord, Ratio};
/// What a layer did to a token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Residual {
    /// Number of its prompt.
    pub prompt: u32,
    /// Its position.
    pub position: u32,
    /// Whether it is one of the prompt's own tokens.
    pub in_prompt: bool,
    /// The layer.
    pub layer: u32,
    /// Length of what attention adds, over the stream with it (or before it).
    pub attention: f32,
    /// The same of the feed-forward branch.
    pub feed_forward: f32,
    /// The same of the whole block.
    pub block: f32,
    /// Cosine between the block's input and its output.
    pub cosine: f32,
    /// What attention, the feed-forward branch and the block add, over the stream with it.
    pub over_output: [f32; 3],
    /// The same over the stream before it.
    pub over_input: [f32; 3],
}

impl Residual {
    /// From the records of a row: attention and feed-forward branch of each layer in turn.
    pub fn of_row(
        prompt: u32,
        position: u32,
        in_prompt: bool,
        records: &[BranchRecord],
        ratio: Ratio,
    ) -> Vec<Residual> {
        // Lengths, of squares.
        let share = |what: [f32; 3], over: [f32; 3]| std::array::from_fn(|at| (what[at] / over[at]).sqrt());
        let layer = |(layer, pair): (u32, &[BranchRecord])| {
            let (first, last) = (pair[0], pair[1]);
            // Squared length of the stream behind the block.
            let output = if last.taken > 0.0 { last.output } else { last.input };
            let under = if ratio == Ratio::OverInput { last.start } else { output };
            Residual {
                prompt,
                position,
                in_prompt,
                layer,
                attention: first.ratio,
                feed_forward: last.ratio,
                block: (last.added / under).sqrt(),
                cosine: last.along / (last.start * output).sqrt(),
                over_output: share(
                    [first.branch, last.branch, last.added],
                    [first.output, last.output, output],
                ),
                over_input: share(
                    [first.branch, last.branch, last.added],
                    [first.input, last.input, last.start],
                ),
            }
        };
        (0..).zip(records.chunks_exact(2)).map(layer).collect()
    }
}
