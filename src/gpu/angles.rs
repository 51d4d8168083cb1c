//! Rotary angles, computed once in double precision: tables of cosines and sines on the device, and which row of them a token takes.

use super::device::{Buffer, Gpu};
use crate::error::Result;
use crate::model::{Kind, Model, Rope, Rotation, Scaling};

/// Tables of all rotations of a model, one behind the other: rows x `half` pairs of cosine and sine.
#[derive(Debug)]
pub(super) struct Angles {
    pub buffer: Buffer,
    /// Pairs of a head that turn.
    pub half: u32,
    pub interleaved: bool,
    /// The model's rotation, and that of layers with a rotation of their own. Row 0 turns nothing.
    tables: [Option<Tables>; 2],
}

/// Where a rotation's rows stand.
#[derive(Debug)]
struct Tables {
    /// Longest sequence that takes the first table; `u32::MAX` where there is no other.
    original: u32,
    /// Angles of sequences up to `original`, a row a position.
    first: u32,
    /// Angles of each position in a sequence that ends there, from position `original` on.
    grown: u32,
    /// For each sequence whose prompt is longer: where its own angles begin; 0 where it is not.
    own: Vec<u32>,
    /// Tokens of each prompt.
    prompts: Vec<u32>,
}

impl Angles {
    /// For so many positions, and prompts of these lengths (scalings that depend on the length take it from them).
    pub fn new(gpu: &Gpu, model: &Model, positions: u32, prompts: &[u32]) -> Result<Angles> {
        let ropes = [&model.rope, &model.local_rope].map(Option::as_ref);
        let some = ropes.iter().flatten().next();
        let half = some.map_or(1, |rope| rope.width as u32 / 2);
        let mut rows = vec![[1f32, 0.0]; half as usize];
        let tables =
            ropes.map(|rope| rope.map(|rope| Tables::new(rope, half, positions, prompts, &mut rows)));
        let interleaved = some.is_some_and(|rope| rope.interleaved);
        Ok(Angles { buffer: gpu.upload("rotary angles", &rows)?, half, interleaved, tables })
    }

    /// The row of a token of a sequence at a layer of this kind.
    pub fn row(&self, kind: &Kind, sequence: u32, position: u32) -> u32 {
        let table = match kind.rotation {
            Rotation::Off => None,
            Rotation::Main => self.tables[0].as_ref(),
            Rotation::Local => self.tables[1].as_ref(),
        };
        table.map_or(0, |table| table.row(sequence, position))
    }
}

impl Tables {
    fn new(rope: &Rope, half: u32, positions: u32, prompts: &[u32], rows: &mut Vec<[f32; 2]>) -> Tables {
        let original = match rope.scaling {
            Scaling::Dynamic { original, .. } | Scaling::Long { original, .. } => {
                u32::try_from(original).unwrap_or(u32::MAX)
            }
            _ => u32::MAX,
        };
        let at = |rows: &Vec<[f32; 2]>| rows.len() as u32 / half;
        let add = |rows: &mut Vec<[f32; 2]>, range: std::ops::Range<u32>, length: u64| {
            let frequencies = rope.frequencies(length);
            range.for_each(|position| rows.extend(turned(rope, &frequencies, position)));
        };
        let first = at(rows);
        add(rows, 0..positions.clamp(1, original.max(1)), 0);
        let grown = at(rows);
        if let Scaling::Dynamic { .. } = rope.scaling {
            // A base of its own for each length.
            (original..positions)
                .for_each(|position| add(rows, position..position + 1, u64::from(position) + 1));
        } else if positions > original {
            add(rows, original..positions, u64::from(positions));
        }
        let mut own = Vec::new();
        for &prompt in prompts {
            own.push(if prompt > original { at(rows) } else { 0 });
            if prompt > original {
                add(rows, 0..prompt, prompt.into());
            }
        }
        Tables { original, first, grown, own, prompts: prompts.to_vec() }
    }

    /// Tokens of a prompt turn as in a sequence of its length, generated ones as in one that ends with them: as transformers does with a
    /// cache.
    fn row(&self, sequence: u32, position: u32) -> u32 {
        let sequence = sequence as usize;
        let prompt = self.prompts.get(sequence).copied().unwrap_or(0);
        match self.own.get(sequence) {
            Some(&own) if own > 0 && position < prompt => own + position,
            _ if position < self.original => self.first + position,
            _ => self.grown + position - self.original,
        }
    }
}

/// Cosine and sine of each pair at a position.
fn turned<'a>(rope: &Rope, frequencies: &'a [f64], position: u32) -> impl Iterator<Item = [f32; 2]> + 'a {
    let amplitude = rope.amplitude();
    frequencies.iter().map(move |frequency| {
        let angle = f64::from(position) * frequency;
        [(amplitude * libm::cos(angle)) as f32, (amplitude * libm::sin(angle)) as f32]
    })
}
