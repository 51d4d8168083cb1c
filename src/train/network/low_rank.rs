//! Additions of low rank to the products of a network (LoRA: Hu et al., arXiv 2106.09685): `y = x M + (x down) up`.

use super::{Layer, Linear, Network};
use crate::rng::Stream;
use crate::train::parameters;
use crate::weights::LayerTensor;
use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Tensor, TensorData};

/// Additions to all products of all layers.
#[derive(Module, Debug)]
pub struct Additions {
    /// Layer by layer and product by product: inputs x rank, then rank x outputs.
    parts: Vec<Param<Tensor<2>>>,
}

/// Number of the first parameter.
const FIRST_ID: u64 = 100_000;

impl Layer {
    /// Its products, by their names.
    pub(super) fn products(&self) -> impl Iterator<Item = (LayerTensor, &Linear)> {
        let gate = self.gate.iter().map(|gate| (LayerTensor::Gate, gate));
        [
            (LayerTensor::Q, &self.q),
            (LayerTensor::K, &self.k),
            (LayerTensor::V, &self.v),
            (LayerTensor::O, &self.output),
        ]
        .into_iter()
        .chain(gate)
        .chain([(LayerTensor::Up, &self.up), (LayerTensor::Down, &self.down)])
    }

    /// The same, to be changed.
    pub(super) fn products_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        [&mut self.q, &mut self.k, &mut self.v, &mut self.output]
            .into_iter()
            .chain(self.gate.iter_mut())
            .chain([&mut self.up, &mut self.down])
    }
}

impl Network {
    /// Layer, name, inputs and outputs of each product that can be added to.
    pub fn products(&self) -> Vec<(u32, LayerTensor, [usize; 2])> {
        let of = |(layer, weights): (u32, &Layer)| {
            let product = |(part, linear): (LayerTensor, &Linear)| (layer, part, linear.matrix.dims());
            weights.products().map(product).collect::<Vec<_>>()
        };
        (0..).zip(&self.layers).flat_map(of).collect()
    }

    /// The same network with these additions.
    #[must_use]
    pub fn added(&self, additions: &Additions) -> Network {
        let mut network = self.clone();
        let mut pairs = additions.parts.chunks_exact(2);
        for linear in network.layers.iter_mut().flat_map(Layer::products_mut) {
            let pair = pairs.next().expect("a pair for each product");
            linear.low = Some((pair[0].val(), pair[1].val()));
        }
        network
    }
}

impl Additions {
    /// Additions that add nothing yet: the first factor is drawn, with a spread of one over the root of the inputs, the second is zero.
    pub fn new(network: &Network, rank: u32, seed: u64) -> Additions {
        let random = &mut Stream::new(seed, "additions");
        let rank = rank as usize;
        let mut parts = Vec::new();
        for (_, _, [inputs, outputs]) in network.products() {
            let spread = 1.0 / libm::sqrt(inputs as f64);
            parts.push((
                (0..inputs * rank).map(|_| (spread * random.normal()) as f32).collect(),
                [inputs, rank],
            ));
            parts.push((vec![0.0; rank * outputs], [rank, outputs]));
        }
        Additions::of(parts, network.device())
    }

    /// Additions of these factors, in the order of [`Network::products`].
    pub(in crate::train) fn of(parts: Vec<(Vec<f32>, [usize; 2])>, device: &Device) -> Additions {
        let device = device.clone().autodiff();
        let part = |(id, (values, shape)): (u64, (Vec<f32>, [usize; 2]))| {
            let tensor = Tensor::<2>::from_data(TensorData::new(values, shape), &device).require_grad();
            Param::initialized(ParamId::from(id), tensor)
        };
        Additions { parts: (FIRST_ID..).zip(parts).map(part).collect() }
    }

    /// Shape and values of each factor.
    pub(in crate::train) fn factors(&self) -> Vec<([usize; 2], Vec<f32>)> {
        let values = |part: &Param<Tensor<2>>| part.val().inner().into_data().iter::<f32>().collect();
        self.parts.iter().map(|part| (part.dims(), values(part))).collect()
    }

    /// The same additions with these values, one factor behind the other.
    #[must_use]
    pub(in crate::train) fn filled(&self, values: &[f32]) -> Additions {
        Additions { parts: parameters::filled(&self.parts, values) }
    }

    /// The same additions for results alone.
    #[must_use]
    pub fn fixed(&self) -> Additions {
        Additions { parts: parameters::fixed(&self.parts) }
    }

    /// Values in all.
    pub fn count(&self) -> usize {
        parameters::count(&self.parts)
    }
}
