// Weights in their packed forms, four at a time: after the text of each shader that reads a format given by FORMAT.
override FORMAT: u32 = 0;   // 0 f32, 1 f16, 2 8-bit in pairs of blocks, 3 4-bit blocks with minimum

// Values 4k to 4k + 3 of the row that begins at this word, in a format other than f32.
fn packed(row: u32, k: u32) -> vec4<f32> {
    if (FORMAT == 1u) {
        let at = row + 2u * k;
        return vec4<f32>(unpack2x16float(weights[at]), unpack2x16float(weights[at + 1u]));
    }
    if (FORMAT == 2u) {
        let at = row + 17u * (k >> 4u);
        let scales = unpack2x16float(weights[at]);
        let scale = select(scales.x, scales.y, (k & 8u) != 0u);
        return scale * vec4<f32>(unpack4xI8(weights[at + 1u + (k & 15u)]));
    }
    let at = row + 5u * (k >> 3u);
    let scale = unpack2x16float(weights[at]);
    let word = weights[at + 1u + (k & 3u)] >> (k & 4u);
    return fma(vec4<f32>(scale.x), vec4<f32>(unpack4xU8(word & 0x0f0f0f0fu)), vec4<f32>(scale.y));
}
