//! A hop: every token runs one layer of the pool, each its own. What a token sees of the others are their newest keys and values, whatever
//! layer they are of (the cache `unified`, the visibility `one_per_token`).

use super::{Frame, Layer, Network, scaled};
use burn::tensor::{Device, Int, Tensor, TensorData};
use std::ops::Range;

/// The newest keys and values of each token, B x G x T x W, and which tokens have any.
#[derive(Clone, Debug, Default)]
pub struct Newest(Option<(Tensor<4>, Tensor<4>, Vec<bool>)>);

/// Who sees what at a hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeenTokens {
    /// The newest entry of each token.
    Newest,
    /// The entries of tokens that run a layer at this hop too.
    Present,
}

/// Tokens in the order of their layers, those that run none at the end.
struct Sorted {
    /// Which token stands at each place, and at which place each token stands; absent: as they are.
    order: Option<(Tensor<1, Int>, Tensor<1, Int>)>,
    /// Layers, with the places of their tokens.
    groups: Vec<(u32, Range<usize>)>,
    /// Places of tokens that run none.
    idle: Range<usize>,
}

impl Sorted {
    fn new(layers: &[Option<u32>], device: &Device) -> Sorted {
        let device = device.clone().without_autodiff();
        let mut order: Vec<usize> = (0..layers.len()).collect();
        let key = |&token: &usize| layers[token].map_or(u32::MAX, |layer| layer);
        order.sort_by_key(key);
        let (mut groups, mut begin) = (Vec::new(), 0);
        for group in order.chunk_by(|a, b| key(a) == key(b)) {
            let end = begin + group.len();
            groups.extend(layers[group[0]].map(|layer| (layer, begin..end)));
            begin = end;
        }
        let idle = groups.last().map_or(0, |(_, places)| places.end)..layers.len();
        let mut places = vec![0i64; order.len()];
        for (place, &token) in order.iter().enumerate() {
            places[token] = place as i64;
        }
        let ids = |ids: Vec<i64>| {
            let count = ids.len();
            Tensor::<1, Int>::from_data(TensorData::new(ids, [count]), &device)
        };
        let sorted = order.iter().enumerate().any(|(place, &token)| place != token);
        let order = order.iter().map(|&token| token as i64).collect();
        Sorted { order: sorted.then(|| (ids(order), ids(places))), groups, idle }
    }

    /// Rows in the order of the layers.
    fn sort(&self, x: Tensor<2>) -> Tensor<2> {
        match &self.order {
            Some((order, _)) => x.select(0, order.clone()),
            None => x,
        }
    }

    /// Rows in the order of the tokens.
    fn back(&self, x: Tensor<2>) -> Tensor<2> {
        match &self.order {
            Some((_, places)) => x.select(0, places.clone()),
            None => x,
        }
    }

    /// Each group's rows through its layer; `idle` makes the rows of those that run none.
    fn each(
        &self,
        x: &Tensor<2>,
        of: impl Fn(u32, Range<usize>, Tensor<2>) -> Tensor<2>,
        idle: impl Fn(Tensor<2>) -> Tensor<2>,
    ) -> Tensor<2> {
        let width = x.dims()[1];
        let rows = |places: &Range<usize>| x.clone().slice([places.clone(), 0..width]);
        let mut parts: Vec<Tensor<2>> =
            self.groups.iter().map(|(layer, places)| of(*layer, places.clone(), rows(places))).collect();
        if !self.idle.is_empty() {
            parts.push(idle(rows(&self.idle)));
        }
        if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, 0) }
    }
}

impl Network {
    /// The stream, B x T x D, behind a hop at which each token (row by row) runs the layer that `layers` says, or none. With `weights`,
    /// B T x 1, each token's branches are multiplied by its weight as they are added.
    pub fn hop(
        &self,
        frame: &Frame,
        stream: Tensor<3>,
        layers: &[Option<u32>],
        weights: Option<Tensor<2>>,
        seen: SeenTokens,
        newest: &mut Newest,
    ) -> Tensor<3> {
        let [rows, tokens, width] = stream.dims();
        let count = rows * tokens;
        let sorted = Sorted::new(layers, &self.device);
        if sorted.groups.is_empty() {
            return stream;
        }
        let x = sorted.sort(stream.reshape([count, width]));
        let weights = weights.map(|weights| sorted.sort(weights));
        let weighted = |branch: Tensor<2>, places: &Range<usize>| match &weights {
            Some(weights) => branch * weights.clone().slice([places.clone(), 0..1]),
            None => branch,
        };
        let attended = self.found(frame, &sorted, &x, (rows, tokens), layers, seen, newest);
        let scale = self.model.scales.residual;
        let block = |layer: u32, places: Range<usize>, x: Tensor<2>| {
            let layer = &self.layers[layer as usize];
            let inside = attended.dims()[1];
            let attention = layer.output.rows(attended.clone().slice([places.clone(), 0..inside]));
            let x = x + weighted(scaled(attention, scale), &places);
            let normed = self.normed(x.clone(), &layer.ffn_norm).unsqueeze::<3>();
            let branch = self.feed_forward(layer, normed).squeeze_dim::<2>(0);
            x + weighted(scaled(branch, scale), &places)
        };
        sorted.back(sorted.each(&x, block, |x| x)).reshape([rows, tokens, width])
    }

    /// What attention finds before the output product, in the order of the layers.
    #[expect(clippy::too_many_arguments, reason = "one step of `hop`, which names them")]
    fn found(
        &self,
        frame: &Frame,
        sorted: &Sorted,
        x: &Tensor<2>,
        (rows, tokens): (usize, usize),
        layers: &[Option<u32>],
        seen: SeenTokens,
        newest: &mut Newest,
    ) -> Tensor<2> {
        let (heads, groups) = (self.model.heads as usize, self.model.kv_heads as usize);
        let width = self.model.head_dim as usize;
        let normed =
            sorted.each(x, |layer, _, x| self.normed(x, &self.layers[layer as usize].attention_norm), |x| x);
        let product = |count: usize, of: fn(&Network, &Layer, Tensor<2>) -> Tensor<2>| {
            let idle = |x: Tensor<2>| Tensor::zeros([x.dims()[0], count * width], &self.device);
            let all = sorted.each(&normed, |layer, _, x| of(self, &self.layers[layer as usize], x), idle);
            sorted.back(all).reshape([rows, tokens, count, width]).swap_dims(1, 2)
        };
        let q = product(heads, |net, layer, x| net.head_normed(layer.q.rows(x), &layer.q_norm));
        let k = product(groups, |net, layer, x| net.head_normed(layer.k.rows(x), &layer.k_norm));
        let v = product(groups, |_, layer, x| layer.v.rows(x));
        let (q, mut k, mut v) = (self.turned(frame, q), self.turned(frame, k), v);
        let rows_of = |taken: &[bool]| {
            let taken: Vec<f32> = taken.iter().map(|&taken| f32::from(u8::from(taken))).collect();
            Tensor::<3>::from_data(TensorData::new(taken, [rows, tokens, 1]), &self.device)
        };
        let mut there: Vec<bool> = layers.iter().map(Option::is_some).collect();
        if let (SeenTokens::Newest, Some((keys, values, had))) = (seen, &newest.0)
            && !sorted.idle.is_empty()
        {
            let new = rows_of(&there).unsqueeze_dim::<4>(1);
            let old = new.clone().neg() + 1.0;
            k = k * new.clone() + keys.clone() * old.clone();
            v = v * new + values.clone() * old;
            there.iter_mut().zip(had).for_each(|(there, had)| *there |= had);
        }
        let present = (!there.iter().all(|&there| there)).then(|| rows_of(&there));
        newest.0 = Some((k.clone(), v.clone(), there));
        let attended = self.attend(frame, q, k, v, present.as_ref());
        sorted.sort(attended.reshape([rows * tokens, heads * width]))
    }

    /// Norms of single heads, of rows of several.
    fn head_normed(&self, x: Tensor<2>, norm: &Option<Tensor<1>>) -> Tensor<2> {
        let Some(norm) = norm else { return x };
        let ([rows, all], width) = (x.dims(), self.model.head_dim as usize);
        self.normed(x.reshape([rows, all / width, width]), norm).reshape([rows, all])
    }
}
