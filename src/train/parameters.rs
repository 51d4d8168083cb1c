//! Weights that are trained, by the names that files give them.

use super::network::Network;
use crate::error::Result;
use crate::model::Model;
use crate::rng::Stream;
use crate::weights::{LayerTensor, Name, needed};
use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Tensor, TensorData};
use std::collections::HashMap;

/// All weights of a model, layer behind layer; matrices are outputs x inputs, vectors one row.
#[derive(Module, Debug)]
pub struct Parameters {
    weights: Vec<Param<Tensor<2>>>,
}

/// Number of the first parameter.
const FIRST_ID: u64 = 100;

/// Spread of the matrices that are drawn (GPT-2: Radford et al., 2019, section 2.3, code `initializer_range`).
const SPREAD: f64 = 0.02;

impl Parameters {
    /// Weights drawn at random: norms are one, biases zero, matrices have a spread of .02, those that write to the stream one over the root of
    /// twice `hops` of that (GPT-2, section 2.3: by the number of branches that are added).
    pub fn new(model: &Model, hops: u32, seed: u64, device: &Device) -> Parameters {
        let random = &mut Stream::new(seed, "weights");
        let values = |name: Name, count: usize| -> Vec<f32> {
            let spread = match name {
                Name::FinalNorm | Name::Layer(_, LayerTensor::AttentionNorm | LayerTensor::FfnNorm) => {
                    return vec![1.0; count];
                }
                Name::Layer(_, LayerTensor::O | LayerTensor::Down) => {
                    SPREAD / libm::sqrt(2.0 * f64::from(hops))
                }
                _ => SPREAD,
            };
            (0..count).map(|_| (spread * random.normal()) as f32).collect()
        };
        Parameters::with(model, values, device)
    }

    /// Weights of these values.
    pub fn with(
        model: &Model,
        mut values: impl FnMut(Name, usize) -> Vec<f32>,
        device: &Device,
    ) -> Parameters {
        let device = device.clone().autodiff();
        let weight = |(id, (name, rows, width)): (u64, (Name, u64, u64))| {
            let shape = [rows as usize, width as usize];
            let data = TensorData::new(values(name, shape[0] * shape[1]), shape);
            Param::initialized(ParamId::from(id), Tensor::<2>::from_data(data, &device).require_grad())
        };
        Parameters { weights: (FIRST_ID..).zip(needed(model)).map(weight).collect() }
    }

    /// The network of these weights: differentiable, or `fixed`, for results alone.
    ///
    /// # Errors
    /// Arithmetic that cannot be trained.
    pub fn network(&self, model: &Model, fixed: bool) -> Result<Network> {
        let by_name: HashMap<Name, usize> =
            needed(model).enumerate().map(|(index, (name, ..))| (name, index)).collect();
        let device = self.weights[0].val().device();
        let device = if fixed { device.without_autodiff() } else { device };
        Network::of(model, &device, |name| {
            let value = by_name.get(&name).map(|&index| self.weights[index].val());
            Ok(value.map(|value| if fixed { value.inner() } else { value }))
        })
    }

    /// Name, shape and values of each.
    pub fn values(&self, model: &Model) -> Vec<(Name, [usize; 2], Vec<f32>)> {
        let value = |((name, ..), weight): ((Name, u64, u64), &Param<Tensor<2>>)| {
            let weight = weight.val().inner();
            (name, weight.dims(), weight.into_data().iter::<f32>().collect())
        };
        needed(model).zip(&self.weights).map(value).collect()
    }

    /// The same parameters with these values, one behind the other.
    #[must_use]
    pub(super) fn filled(&self, values: &[f32]) -> Parameters {
        Parameters { weights: filled(&self.weights, values) }
    }

    /// Values in all.
    pub fn count(&self) -> usize {
        count(&self.weights)
    }
}

/// The same parameters with these values, one behind the other.
pub(super) fn filled(params: &[Param<Tensor<2>>], values: &[f32]) -> Vec<Param<Tensor<2>>> {
    let mut rest = values;
    let fill = |param: &Param<Tensor<2>>| {
        let (own, behind) = rest.split_at(param.dims().iter().product());
        rest = behind;
        refilled(param, own)
    };
    params.iter().map(fill).collect()
}

/// The same parameters for results alone.
pub(super) fn fixed(params: &[Param<Tensor<2>>]) -> Vec<Param<Tensor<2>>> {
    params.iter().map(|param| Param::initialized(param.id, param.val().inner())).collect()
}

/// Values of all of them.
pub(super) fn count(params: &[Param<Tensor<2>>]) -> usize {
    params.iter().map(|param| param.dims().iter().product::<usize>()).sum()
}

/// The same parameter with other values.
pub(super) fn refilled(param: &Param<Tensor<2>>, values: &[f32]) -> Param<Tensor<2>> {
    let data = TensorData::new(values.to_vec(), param.dims());
    Param::initialized(param.id, Tensor::<2>::from_data(data, &param.val().device()).require_grad())
}
