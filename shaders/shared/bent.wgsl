// Non-linearities by KIND: after the text of `activation` and `gated_activation`.
override KIND: u32 = 0;   // 0 SiLU, 1 GELU with tanh, 2 ReLU, 3 GELU with erf, 4 quick GELU, 5 squared ReLU

// One minus the error function of x, which is not negative, off by at most 1.5e-7: Abramowitz and Stegun, Handbook of Mathematical
// Functions, 7.1.26.
fn erfc(x: vec4<f32>) -> vec4<f32> {
    let t = 1.0 / (1.0 + 0.3275911 * x);
    let p = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
    return p * exp(-x * x);
}

fn bent(x: vec4<f32>) -> vec4<f32> {
    if (KIND == 0u) { return x / (1.0 + exp(-x)); }
    // sqrt(8 / pi): the tanh form of GELU as x / (1 + exp(-2u)).
    if (KIND == 1u) { return x / (1.0 + exp(-1.5957691216 * (x + 0.044715 * x * x * x))); }
    if (KIND == 2u) { return max(x, vec4<f32>()); }
    if (KIND == 3u) {
        // 1 / sqrt(2). From the side where nothing cancels.
        let y = 0.5 * abs(x) * erfc(0.70710678118 * abs(x));
        return max(x, vec4<f32>()) - y;
    }
    if (KIND == 4u) { return x / (1.0 + exp(-1.702 * x)); }
    let y = max(x, vec4<f32>());
    return y * y;
}
