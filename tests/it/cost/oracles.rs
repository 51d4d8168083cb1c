//! The oracles themselves: wrong ones would make wrong shaders right.

use proptest::prelude::*;
use radialsim::reference::*;
use radialsim::rng::Stream;

fn random(seed: u64, name: &str, count: usize) -> Vec<f64> {
    let mut stream = Stream::new(seed, name);
    (0..count).map(|_| stream.normal()).collect()
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-12 * (1.0 + a.abs().max(b.abs()))
}

fn all_close(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && std::iter::zip(a, b).all(|(&a, &b)| close(a, b))
}

const HEADS: Heads = Heads { heads: 4, kv_heads: 2, head_dim: 6 };

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Turning keeps lengths, and the product of a query and a key depends on their distance alone.
    #[test]
    fn rope_turns(seed in any::<u64>(), at in 0..1000_u32, distance in 0..1000_u32, shift in 0..1000_u32) {
        let turned = |values: &[f64], position| rope(1, 1, 8, values, &Angles::new(&[position], 8, 1e4), false);
        let dot = |a: &[f64], b: &[f64]| std::iter::zip(a, b).map(|(a, b)| a * b).sum::<f64>();
        let (q, k) = (random(seed, "q", 8), random(seed, "k", 8));
        prop_assert_eq!(&turned(&q, 0), &q);
        let there = turned(&q, at);
        prop_assert!(close(dot(&there, &there), dot(&q, &q)));
        let near = dot(&turned(&q, at + distance), &turned(&k, at));
        let far = dot(&turned(&q, at + shift + distance), &turned(&k, at + shift));
        prop_assert!((near - far).abs() < 1e-9, "{near} {far}");
    }

    /// With values that are all one, the result is the sum of the softmax: one. Results lie among the values.
    #[test]
    fn softmax_sums_to_one(seed in any::<u64>(), rows in 1..5_usize, entries in 1..9_usize, scale in 0.1..500.0_f64) {
        let queries: Vec<f64> = random(seed, "q", rows * 24).iter().map(|x| x * scale).collect();
        let keys = random(seed, "k", entries * 12);
        let visible = vec![(0..entries as u32).collect(); rows];
        let ones = attention(HEADS, Scores::plain(6), &queries, &keys, &vec![1.0; entries * 12], &visible);
        prop_assert!(ones.iter().all(|&one| close(one, 1.0)), "{ones:?}");
        let values = random(seed, "v", entries * 12);
        let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(low, high), &v| (low.min(v), high.max(v)));
        let mixed = attention(HEADS, Scores::plain(6), &queries, &keys, &values, &visible);
        prop_assert!(mixed.iter().all(|&x| low - 1e-12 <= x && x <= high + 1e-12));
    }

    /// A prompt in one pass gives what its tokens give one by one over what is in the cache by then; holes included.
    #[test]
    fn prefill_is_decode_one_by_one(seed in any::<u64>(), tokens in 1..8_u32, holes in any::<u8>()) {
        let kept: Vec<u32> = (0..tokens).filter(|&token| token == 0 || holes >> token & 1 == 0).collect();
        let (queries, keys, values) = (
            random(seed, "q", tokens as usize * 24),
            random(seed, "k", kept.len() * 12),
            random(seed, "v", kept.len() * 12),
        );
        let positions: Vec<u32> = (0..tokens).collect();
        let visible = causal(&positions, &kept, None);
        let prefill = attention(HEADS, Scores::plain(6), &queries, &keys, &values, &visible);
        for (token, query) in queries.chunks_exact(24).enumerate() {
            let filled = kept.iter().filter(|&&position| position as usize <= token).count();
            let all = vec![(0..filled as u32).collect()];
            let decode = attention(HEADS, Scores::plain(6), query, &keys[..filled * 12], &values[..filled * 12], &all);
            prop_assert!(all_close(&decode, &prefill[token * 24..][..24]));
        }
    }

    #[test]
    fn norms_normalise(seed in any::<u64>(), rows in 1..4_usize, width in 2..20_usize) {
        let (input, ones, zeros) = (random(seed, "x", rows * width), vec![1.0; width], vec![0.0; width]);
        let mean_square = |row: &[f64]| row.iter().map(|x| x * x).sum::<f64>() / width as f64;
        for row in rms_norm(rows, width, &input, &ones, 0.0).chunks_exact(width) {
            prop_assert!(close(mean_square(row), 1.0));
        }
        for row in layer_norm(rows, width, &input, &ones, &zeros, 0.0).chunks_exact(width) {
            prop_assert!(close(mean_square(row), 1.0) && row.iter().sum::<f64>().abs() < 1e-9);
        }
        let shifted: Vec<f64> = input.iter().map(|x| x * 3.0 + 5.0).collect();
        let norm = |input: &[f64]| layer_norm(rows, width, input, &ones, &zeros, 0.0);
        let pairs = std::iter::zip(norm(&shifted), norm(&input));
        prop_assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-6));
    }

    /// A group's rows are an ordinary product with the group's weights.
    #[test]
    fn groups_are_products_apart(seed in any::<u64>(), sizes in prop::collection::vec(0..4_usize, 1..4)) {
        let rows: usize = sizes.iter().sum();
        let (input, weights) = (random(seed, "x", rows * 5), random(seed, "w", sizes.len() * 15));
        let grouped = grouped_matmul(&sizes, 5, 3, &input, &weights);
        let mut first = 0;
        for (group, &rows) in sizes.iter().enumerate() {
            let alone = matmul(rows, 5, 3, &input[first * 5..(first + rows) * 5], &weights[group * 15..][..15]);
            prop_assert_eq!(&grouped[first * 3..(first + rows) * 3], &alone);
            first += rows;
        }
    }

    /// 2:4 weights are dense weights with zeros.
    #[test]
    fn two_four_is_dense_with_zeros(seed in any::<u64>(), pairs in prop::collection::vec((0..3_u8, 1..4_u8), 6)) {
        let places: Vec<u8> = pairs.iter().flat_map(|&(a, b)| [a, b.max(a + 1)]).collect();
        let (input, kept) = (random(seed, "x", 2 * 8), random(seed, "w", 12));
        let mut dense = vec![0.0; 24];
        for (k, (&place, &weight)) in places.iter().zip(&kept).enumerate() {
            dense[k / 2 * 4 + usize::from(place)] = weight;
        }
        let sparse = matmul_two_four(2, 8, 3, &input, &TwoFour { kept, places });
        prop_assert!(all_close(&sparse, &matmul(2, 8, 3, &input, &dense)));
    }

    #[test]
    fn scatter_undoes_gather(seed in any::<u64>(), order in Just(vec![3_u32, 0, 4, 1]).prop_shuffle()) {
        let stream = random(seed, "x", 6 * 3);
        let block: Vec<f64> = gather_rows(3, &stream, &order).iter().map(|x| 2.0 * x).collect();
        let mut back = stream.clone();
        scatter_rows(3, &block, &order, &mut back);
        for row in 0..6 {
            let factor = if order.contains(&row) { 2.0 } else { 1.0 };
            for index in row as usize * 3..(row as usize + 1) * 3 {
                prop_assert_eq!(back[index], factor * stream[index]);
            }
        }
    }
}

#[test]
fn attention_to_one_entry_is_its_value() {
    let (queries, keys, values) = (random(1, "q", 24), random(1, "k", 36), random(1, "v", 36));
    let result = attention(HEADS, Scores::plain(6), &queries, &keys, &values, &[vec![2]]);
    // Two query heads share a value head: entry 2, head 0, head 0, head 1, head 1.
    let expected = [&values[24..30], &values[24..30], &values[30..36], &values[30..36]].concat();
    assert!(all_close(&result, &expected));
}

#[test]
fn small_results_by_hand() {
    // (1 2) times the columns (3 4) and (5 6).
    assert_eq!(matmul(1, 2, 2, &[1.0, 2.0], &[3.0, 4.0, 5.0, 6.0]), [11.0, 17.0]);
    assert_eq!(activation(Activation::Relu, &[-2.0, 3.0]), [0.0, 3.0]);
    // SiLU(1) = 1 / (1 + 1/e); GELU(1), tanh form = (1 + tanh(sqrt(2 / pi) 1.044715)) / 2.
    assert!(close(Activation::Silu.of(1.0), 0.731_058_578_630_004_9));
    let gelu = 0.5 * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * 1.044715).tanh());
    assert!(close(Activation::GeluTanh.of(1.0), gelu));
    assert_eq!(gated_activation(Activation::Relu, &[2.0, -1.0], &[5.0, 5.0]), [10.0, 0.0]);
    assert_eq!(rms_norm(1, 2, &[3.0, 3.0], &[1.0, 2.0], 0.0), [1.0, 2.0]);
    assert_eq!(layer_norm(1, 2, &[1.0, 3.0], &[1.0, 2.0], &[0.5, 0.5], 0.0), [-0.5, 2.5]);
    // A quarter turn of the pair (1, 2) by cos 0 and sin 1.
    assert_eq!(rope(1, 1, 2, &[1.0, 2.0], &Angles { cos: vec![0.0], sin: vec![1.0] }, false), [-2.0, 1.0]);
    assert_eq!(sample(2, 3, &[1.0, 4.0, 4.0, -1.0, -2.0, -3.0]), [1, 0]);
    // A fair coin by one that falls 3 of 4 times: (ln(2/3) + ln(2)) / 2; of itself nothing.
    let coins = [0.25f64.ln(), 0.75f64.ln(), 0.0, 0.0];
    let fair = [0.5f64.ln(), 0.5f64.ln(), 0.0, 0.0];
    let found = divergence(2, &fair, &coins, &[[0.0; 2], [2.0f64.ln(); 2]]);
    assert!(close(found[0], ((2.0f64 / 3.0).ln() + 2.0f64.ln()) / 2.0) && found[1] == 0.0);
    assert_eq!(embed_rows(2, &[1.0, 2.0, 3.0, 4.0], &[1, 1, 0]), [3.0, 4.0, 3.0, 4.0, 1.0, 2.0]);
    let mut cache = vec![0.0; 6];
    kv_write(2, &[1.0, 2.0, 3.0, 4.0], &[2, 0], &mut cache);
    assert_eq!(cache, [3.0, 4.0, 0.0, 0.0, 1.0, 2.0]);
    let mut stream = vec![1.0; 4];
    residual_add(2, &mut stream, &[1.0, 2.0, 3.0, 4.0], Some(&[false, true]));
    assert_eq!(stream, [1.0, 1.0, 4.0, 5.0]);
    // Hidden: SiLU(0) = 0 and SiLU(1) > 0; the second option reads the second.
    let mlp = RouterWeights::Mlp { hidden: 2, first: &[0.0, 1.0], second: &[1.0, 0.0, 0.0, 1.0] };
    assert_eq!(router(1, 1, 2, &[1.0], mlp), [1]);
    assert_eq!(router(1, 1, 2, &[1.0], RouterWeights::Linear(&[2.0, 1.0])), [0]);
}

#[test]
fn counted_numbers_give_the_results_of_plain_ones() {
    let (queries, keys, values) = (random(2, "q", 24), random(2, "k", 36), random(2, "v", 36));
    let plain = attention(HEADS, Scores::plain(6), &queries, &keys, &values, &[vec![0, 2]]);
    let load = |values: &[f64]| Counted::load(values, 0);
    let (counted, counts) = Counted::count(|| {
        attention(HEADS, Scores::plain(6), &load(&queries), &load(&keys), &load(&values), &[vec![0, 2]])
    });
    assert_eq!(counted.iter().map(|x| x.value()).collect::<Vec<_>>(), plain);
    // 4 heads x 2 entries x (4 x 6 + 4) + 2 x 24.
    assert_eq!(counts.flops, 4 * 2 * 28 + 48);
}
