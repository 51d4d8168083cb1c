//! Rotary angles, computed once in double precision.

/// Cosine and sine of each position and pair: `positions x head_dim / 2`. Pair `i` turns by
/// `position / theta^(2 i / head_dim)` (Su et al., arXiv 2104.09864, section 3.2.2).
pub(super) fn table(positions: u32, head_dim: u32, theta: f64) -> Vec<[f32; 2]> {
    let half = head_dim / 2;
    let frequency = |pair: u32| 1.0 / libm::pow(theta, 2.0 * f64::from(pair) / f64::from(head_dim));
    let frequencies: Vec<f64> = (0..half).map(frequency).collect();
    let turn = |position: u32| {
        let angle = move |frequency: &f64| f64::from(position) * frequency;
        frequencies.iter().map(angle).map(|angle| [libm::cos(angle) as f32, libm::sin(angle) as f32])
    };
    (0..positions.max(1)).flat_map(turn).collect()
}
