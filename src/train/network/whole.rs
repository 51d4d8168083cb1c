//! All weights of all layers, as they are trained and as files keep them.

use super::{Layer, Linear, Network};
use crate::train::parameters;
use crate::weights::{LayerTensor, Name};
use burn::module::{Module, Param, ParamId};
use burn::tensor::{Tensor, TensorData};

/// The weights of all layers, products and norms. Embedding, last norm and head are not among them.
#[derive(Module, Debug)]
pub struct LayerWeights {
    /// Layer by layer: products, inputs x outputs, then the two norms as rows.
    parts: Vec<Param<Tensor<2>>>,
}

/// Number of the first parameter.
const FIRST_ID: u64 = 200_000;

impl Layer {
    fn norms_mut(&mut self) -> [&mut Tensor<1>; 2] {
        [&mut self.attention_norm, &mut self.ffn_norm]
    }
}

impl Network {
    /// The same network with these weights in its layers.
    #[must_use]
    pub fn with_layers(&self, weights: &LayerWeights) -> Network {
        let mut network = self.clone();
        let mut parts = weights.parts.iter();
        let mut next = || parts.next().expect("a value for each weight").val();
        for layer in &mut network.layers {
            layer.products_mut().for_each(|linear| linear.matrix = next());
            layer.norms_mut().into_iter().for_each(|norm| *norm = next().squeeze_dim(0));
        }
        network
    }

    /// All weights by their names, as files keep them: matrices outputs x inputs, vectors as one row.
    ///
    /// # Panics
    /// Biases, norms of heads, and additions of low rank, none of which a plain Llama has.
    pub(in crate::train) fn weights(&self) -> Vec<(Name, [usize; 2], Vec<f32>)> {
        let values = |matrix: &Tensor<2>| -> Vec<f32> { matrix.clone().into_data().iter::<f32>().collect() };
        let matrix = |name: Name, matrix: &Tensor<2>| (name, matrix.dims(), values(matrix));
        let norm = |name: Name, norm: &Tensor<1>| {
            let one = f32::from(u8::from(self.model.norm.plus_one));
            let values: Vec<f32> = norm.clone().into_data().iter::<f32>().map(|value| value - one).collect();
            (name, [1, values.len()], values)
        };
        let mut all = vec![matrix(Name::Embedding, &self.embedding)];
        all.extend((!self.model.tied).then(|| matrix(Name::Head, &self.head.clone().transpose())));
        all.extend(self.final_norm.iter().map(|values| norm(Name::FinalNorm, values)));
        for (index, layer) in (0..).zip(&self.layers) {
            let named = |part| Name::Layer(index, part);
            all.push(norm(named(LayerTensor::AttentionNorm), &layer.attention_norm));
            all.push(norm(named(LayerTensor::FfnNorm), &layer.ffn_norm));
            assert!(layer.q_norm.is_none() && layer.k_norm.is_none(), "norms of heads");
            for (part, linear) in layer.products() {
                let Linear { matrix: product, bias: None, low: None } = linear else {
                    panic!("a product that is more than its matrix")
                };
                all.push(matrix(named(part), &product.clone().transpose()));
            }
        }
        all
    }
}

impl LayerWeights {
    /// Those of this network.
    pub fn of(network: &Network) -> LayerWeights {
        let device = network.device.clone().autodiff();
        let mut parts = Vec::new();
        let mut add = |matrix: Tensor<2>| {
            // Read and made anew, so that the values lie in their rows.
            let data: TensorData = matrix.into_data();
            let tensor = Tensor::<2>::from_data(data, &device).require_grad();
            parts.push(Param::initialized(ParamId::from(FIRST_ID + parts.len() as u64), tensor));
        };
        for layer in &network.layers {
            layer.products().for_each(|(_, linear)| add(linear.matrix.clone()));
            [&layer.attention_norm, &layer.ffn_norm]
                .into_iter()
                .for_each(|norm| add(norm.clone().unsqueeze()));
        }
        LayerWeights { parts }
    }

    /// The values of each, as they stand here.
    pub(in crate::train) fn values(&self) -> impl Iterator<Item = Vec<f32>> {
        self.parts.iter().map(|part| part.val().inner().into_data().iter::<f32>().collect())
    }

    /// The same weights with these values, one behind the other.
    #[must_use]
    pub(in crate::train) fn filled(&self, values: &[f32]) -> LayerWeights {
        LayerWeights { parts: parameters::filled(&self.parts, values) }
    }

    /// The same weights for results alone.
    #[must_use]
    pub fn fixed(&self) -> LayerWeights {
        LayerWeights { parts: parameters::fixed(&self.parts) }
    }

    /// Values in all.
    pub fn count(&self) -> usize {
        parameters::count(&self.parts)
    }
}
