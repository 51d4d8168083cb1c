//! The skip router: before each layer it looks at a token's state and decides for each branch whether the token takes it.

use super::network::root_normed;
use crate::rng::Stream;
use crate::weights::{SkipDescription, SkipRouter as Weights, transposed};
use burn::module::{Module, Param, ParamId};
use burn::tensor::activation::silu;
use burn::tensor::{Device, Gradients, Tensor, TensorData};

/// A skip router whose scores can be differentiated; what it computes is said at [`crate::weights::SkipRouter`].
#[derive(Module, Debug)]
pub struct SkipRouter {
    /// D x hidden.
    first: Param<Tensor<2>>,
    /// Layers x hidden.
    vectors: Param<Tensor<2>>,
    /// Layers x hidden x 2.
    second: Param<Tensor<3>>,
    /// Layers x 2.
    biases: Param<Tensor<2>>,
}

impl SkipRouter {
    /// One that is drawn at random: `first` with a spread of one over the root of the width, `second` with a tenth of one over the root of the
    /// hidden width, the rest zero.
    pub fn new(layers: u32, width: u64, hidden: u32, seed: u64, device: &Device) -> SkipRouter {
        let random = &mut Stream::new(seed, "skip router");
        let (layers, width, hidden) = (layers as usize, width as usize, hidden as usize);
        let spread = 1.0 / libm::sqrt(width as f64);
        let first = (0..width * hidden).map(|_| (spread * random.normal()) as f32).collect();
        let spread = 0.1 / libm::sqrt(hidden as f64);
        let second = (0..layers * hidden * 2).map(|_| (spread * random.normal()) as f32).collect();
        let parts = [first, vec![0.0; layers * hidden], second, vec![0.0; layers * 2]];
        SkipRouter::of(parts, layers, width, hidden, device)
    }

    fn of(
        [first, vectors, second, biases]: [Vec<f32>; 4],
        layers: usize,
        width: usize,
        hidden: usize,
        device: &Device,
    ) -> SkipRouter {
        let device = device.clone().autodiff();
        // Fixed numbers, so that an optimiser's state finds its parameters again in another process.
        let matrix = |id: u64, values: Vec<f32>, shape: [usize; 2]| {
            Param::initialized(
                ParamId::from(id),
                Tensor::<2>::from_data(TensorData::new(values, shape), &device).require_grad(),
            )
        };
        let shape = [layers, hidden, 2];
        SkipRouter {
            first: matrix(1, first, [width, hidden]),
            vectors: matrix(2, vectors, [layers, hidden]),
            second: Param::initialized(
                ParamId::from(3),
                Tensor::from_data(TensorData::new(second, shape), &device).require_grad(),
            ),
            biases: matrix(4, biases, [layers, 2]),
        }
    }

    /// Layers that it decides for.
    pub fn layers(&self) -> u32 {
        self.biases.dims()[0] as u32
    }

    /// Width of the stream.
    pub fn width(&self) -> u32 {
        self.first.dims()[0] as u32
    }

    /// Where it is.
    pub(super) fn device(&self) -> Device {
        self.biases.val().device()
    }

    /// Width of its hidden layer.
    pub fn hidden(&self) -> u32 {
        self.first.dims()[1] as u32
    }

    /// Scores before a layer, B x T x 2, of the stream that enters it; differentiable in its own weights and in the stream.
    pub fn scores(&self, layer: u32, stream: Tensor<3>) -> Tensor<3> {
        let [rows, tokens, width] = stream.dims();
        let (layer, hidden) = (layer as usize, self.hidden() as usize);
        let n = root_normed(stream, Weights::EPSILON).reshape([rows * tokens, width]);
        let vector = self.vectors.val().slice([layer..layer + 1, 0..hidden]);
        let inside = silu(n.matmul(self.first.val()) + vector);
        let second = self.second.val().slice([layer..layer + 1, 0..hidden, 0..2]).reshape([hidden, 2]);
        let bias = self.biases.val().slice([layer..layer + 1, 0..2]);
        (inside.matmul(second) + bias).reshape([rows, tokens, 2])
    }

    /// The same router with all scores higher by `by`: fewer branches are left out.
    #[must_use]
    pub fn shifted(&self, by: f64) -> SkipRouter {
        let biases = (self.biases.val().inner() + by).autodiff().require_grad();
        SkipRouter { biases: Param::initialized(ParamId::from(4), biases), ..self.clone() }
    }

    /// The same router for decisions alone, without a memory of how they came about.
    #[must_use]
    pub fn fixed(&self) -> SkipRouter {
        let matrix = |param: &Param<Tensor<2>>| Param::initialized(param.id, param.val().inner());
        SkipRouter {
            first: matrix(&self.first),
            vectors: matrix(&self.vectors),
            second: Param::initialized(self.second.id, self.second.val().inner()),
            biases: matrix(&self.biases),
        }
    }

    /// The values of each part, as they stand here.
    pub(super) fn values(&self) -> [Vec<f32>; 4] {
        let values = |data: TensorData| -> Vec<f32> { data.iter::<f32>().collect() };
        [
            values(self.first.val().into_data()),
            values(self.vectors.val().into_data()),
            values(self.second.val().into_data()),
            values(self.biases.val().into_data()),
        ]
    }

    /// The derivative of a sum by each value, in the same order.
    pub(super) fn gradient(&self, gradients: &Gradients) -> Vec<f32> {
        fn of<const R: usize>(part: &Param<Tensor<R>>, gradients: &Gradients) -> Vec<f32> {
            match part.val().grad(gradients) {
                Some(gradient) => gradient.into_data().iter::<f32>().collect(),
                None => vec![0.0; part.dims().iter().product()],
            }
        }
        let first = [of(&self.first, gradients), of(&self.vectors, gradients)];
        [first.concat(), of(&self.second, gradients), of(&self.biases, gradients)].concat()
    }

    /// A router of the same sizes with these values, one part behind the other.
    #[must_use]
    pub(super) fn filled(&self, values: &[f32]) -> SkipRouter {
        let mut rest = values;
        let parts = self.values().map(|part| {
            let (own, behind) = rest.split_at(part.len());
            rest = behind;
            own.to_vec()
        });
        let [layers, width, hidden] = [self.layers(), self.width(), self.hidden()].map(|size| size as usize);
        SkipRouter::of(parts, layers, width, hidden, &self.device())
    }

    /// The same router with one score for both branches of a layer, the first.
    #[must_use]
    pub(super) fn whole(&self) -> SkipRouter {
        let [first, vectors, mut second, mut biases] = self.values();
        second.chunks_exact_mut(2).for_each(|scores| scores[1] = scores[0]);
        biases.chunks_exact_mut(2).for_each(|scores| scores[1] = scores[0]);
        self.filled(&[first, vectors, second, biases].concat())
    }

    /// Its weights as files keep them, in their rows.
    pub(super) fn weights(&self, described: SkipDescription) -> Weights {
        let values = |data: TensorData| -> Vec<f32> { data.iter::<f32>().collect() };
        Weights {
            described,
            layers: self.layers(),
            width: self.width(),
            hidden: self.hidden(),
            first: values(self.first.val().transpose().into_data()),
            vectors: values(self.vectors.val().into_data()),
            second: values(self.second.val().swap_dims(1, 2).into_data()),
            biases: values(self.biases.val().into_data()),
        }
    }

    /// The router with these weights.
    pub(super) fn with(weights: &Weights, device: &Device) -> SkipRouter {
        let [layers, width, hidden] =
            [weights.layers, weights.width, weights.hidden].map(|size| size as usize);
        let second =
            weights.second.chunks_exact(2 * hidden).flat_map(|layer| transposed(layer, 2, hidden)).collect();
        let first = transposed(&weights.first, hidden, width);
        SkipRouter::of(
            [first, weights.vectors.clone(), second, weights.biases.clone()],
            layers,
            width,
            hidden,
            device,
        )
    }
}
