//! Non-linearities of the feed-forward branch.

use super::{Number, expect};

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x / (1 + exp(-x))`; also called swish. Its count is the one that `Kernel::work` uses for all.
    Silu,
    /// The tanh form of GELU: `x / (1 + exp(-2 u))` with `u = sqrt(2 / pi) (x + 0.044715 x^3)`, as
    /// `(1 + tanh u) / 2 = 1 / (1 + exp(-2 u))` (Hendrycks and Gimpel, arXiv 1606.08415, section 2).
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
    /// GELU itself: `x / 2 (1 + erf(x / sqrt(2)))` (the same paper).
    GeluErf,
    /// `x / (1 + exp(-1.702 x))` (the same paper).
    QuickGelu,
    /// `max(x, 0)^2` (So et al., arXiv 2109.08668).
    Relu2,
}

impl Activation {
    /// Its value at `x`.
    pub fn of<N: Number>(self, x: N) -> N {
        let one = N::constant(1.0);
        match self {
            Activation::Silu => x / (one + (N::zero() - x).exp()),
            Activation::GeluTanh => {
                let cubic = x * x * x * N::constant(0.044715);
                let twice_u = (x + cubic) * N::constant(-2.0 * (2.0 / std::f64::consts::PI).sqrt());
                x / (one + twice_u.exp())
            }
            Activation::Relu => x.max(N::zero()),
            // The error function is taken of the value: counting numbers do not know it.
            Activation::GeluErf => {
                let erf = N::constant(libm::erf(x.value() / std::f64::consts::SQRT_2));
                x * N::constant(0.5) * (one + erf)
            }
            Activation::QuickGelu => x / (one + (x * N::constant(-1.702)).exp()),
            Activation::Relu2 => {
                let y = x.max(N::zero());
                y * y
            }
        }
    }
}

/// Element by element; any shape.
pub fn activation<N: Number>(kind: Activation, input: &[N]) -> Vec<N> {
    input.iter().map(|&x| kind.of(x)).collect()
}

/// `activation(gate) * up`, element by element; both of the same shape.
pub fn gated_activation<N: Number>(kind: Activation, gate: &[N], up: &[N]) -> Vec<N> {
    expect(up, "up", &[gate.len()]);
    gate.iter().zip(up).map(|(&gate, &up)| kind.of(gate) * up).collect()
}
