//! The file of a table of routes: which layers a token visits, by its word. Nothing is decided when it runs.

use super::router_file::{self, RouterFile};
use crate::error::{InputError, Result};
use crate::model::{Model, TableDescription};
use crate::trace::{Route, Step};
use safetensors::tensor::{Dtype, TensorView};

/// Routes of V words over H hops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WordTable {
    /// What it says of itself.
    pub described: TableDescription,
    /// V.
    pub words: u32,
    /// V x H layers of the pool, word by word.
    pub layers: Vec<u32>,
}

impl WordTable {
    /// The layers that a token of this word visits, in order.
    ///
    /// # Panics
    /// A word that the table does not have.
    pub fn of(&self, word: u32) -> &[u32] {
        let hops = self.described.hops as usize;
        &self.layers[word as usize * hops..][..hops]
    }

    /// The same as a route of whole blocks.
    ///
    /// # Panics
    /// A word that the table does not have.
    pub fn route(&self, word: u32) -> Route {
        Route(self.of(word).iter().map(|&layer| Step::block(layer)).collect())
    }

    /// A safetensors file with the tensor `layers` in U32.
    ///
    /// # Panics
    /// A table whose size is not what it says.
    pub fn bytes(&self) -> Vec<u8> {
        let bytes: Vec<u8> = self.layers.iter().flat_map(|layer| layer.to_le_bytes()).collect();
        let shape = vec![self.words as usize, self.described.hops as usize];
        let view = TensorView::new(Dtype::U32, shape, &bytes).expect("as many layers as it says");
        router_file::file([("layers", view)], &self.described)
    }

    /// The table of a file that was opened.
    ///
    /// # Errors
    /// Other tensors, and another number of hops than the description says.
    pub(super) fn read(file: &RouterFile, described: TableDescription) -> Result<WordTable> {
        file.only(&["layers"])?;
        let ([words, hops], layers) = file.integers::<2>("layers")?;
        if hops != described.hops as usize || words == 0 {
            let what = format!("words x {}, the number of hops", described.hops);
            return Err(file.wrong("layers", what));
        }
        Ok(WordTable { described, words: file.size(words)?, layers })
    }

    /// Whether it was made for a model of these words and layers.
    ///
    /// # Errors
    /// Other words, and layers that the model does not have.
    pub fn check(&self, model: &Model) -> Result<()> {
        router_file::check_words("layers", self.words, model)?;
        match self.layers.iter().find(|&&layer| layer >= model.layers) {
            Some(layer) => {
                let what = format!("layers below {}", model.layers);
                Err(InputError::expected(what).key("layers").found(layer).into())
            }
            None => Ok(()),
        }
    }
}
