//! What a network is worth on texts: perplexity, and the divergence of its predictions from the teacher's.

use super::decisions::{TrainedRouting, forward, through};
use super::network::Network;
use super::walk::{Rules, Walk, tread};
use crate::quality::{SequenceSums, Texts};
use crate::weights::SkipKv;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor, TensorData};

/// Runs the teacher dense and, over the same texts, the network under each of some routings: for each routing one `SequenceSums` a sequence.
pub fn measure(
    network: &Network,
    texts: &Texts,
    kv: SkipKv,
    networks: &[DivergenceOf],
) -> Vec<Vec<SequenceSums>> {
    let frame = network.frame(texts.length);
    let mut all = vec![Vec::new(); networks.len()];
    for (index, batch) in texts.batches().enumerate() {
        let (teacher, dense) = forward(network, &frame, &batch, &TrainedRouting::Dense, kv);
        for (choice, all) in networks.iter().zip(&mut all) {
            let (logits, decisions) = match choice {
                DivergenceOf::Along(walk, rules) => {
                    let trodden = tread(network, &frame, &batch, walk, rules);
                    let walked = &trodden.walked;
                    let depth = |row: usize| walked.mean_depth(row * texts.length..(row + 1) * texts.length);
                    all.extend(of_batch(&batch, teacher.clone(), trodden.logits, depth));
                    continue;
                }
                DivergenceOf::As(TrainedRouting::Dense) => (teacher.clone(), dense.clone()),
                // Its heads may turn in another order than the whole model's.
                DivergenceOf::Tuned(tuned, routing) => {
                    forward(tuned, &tuned.frame(texts.length), &batch, routing, kv)
                }
                DivergenceOf::As(routing) => forward(network, &frame, &batch, routing, kv),
                DivergenceOf::Shuffled(routing, seed) => {
                    let (_, decisions) = through(network, &frame, &batch, routing, kv);
                    let shuffled = decisions.shuffled(seed.wrapping_add(index as u64));
                    forward(network, &frame, &batch, &TrainedRouting::Given(&shuffled), kv)
                }
            };
            all.extend(of_batch(&batch, teacher.clone(), logits, |row| decisions.depth_of(row)));
        }
    }
    all
}

/// What is measured.
#[derive(Clone, Debug)]
pub enum DivergenceOf<'a> {
    /// A routing.
    As(TrainedRouting<'a>),
    /// Its decisions, given to other tokens of the same batch.
    Shuffled(TrainedRouting<'a>, u64),
    /// A routing through layers that were tuned for it.
    Tuned(&'a Network, TrainedRouting<'a>),
    /// A way through the pool.
    Along(Walk<'a>, Rules),
}

/// KL divergence of the teacher's predictions from these, nats: B x T, of logits B x T x V.
pub(super) fn divergences(teacher: Tensor<3>, logits: Tensor<3>) -> Tensor<2> {
    divergences_of(log_softmax(teacher, 2), logits)
}

/// The same, of the logarithms of the teacher's probabilities: for whoever asks several times of one teacher.
pub(super) fn divergences_of(teacher: Tensor<3>, logits: Tensor<3>) -> Tensor<2> {
    let student = log_softmax(logits, 2);
    (teacher.clone().exp() * (teacher - student)).sum_dim(2).squeeze_dim(2)
}

fn of_batch(
    batch: &[&[u32]],
    teacher: Tensor<3>,
    logits: Tensor<3>,
    depth: impl Fn(usize) -> f64,
) -> Vec<SequenceSums> {
    let [rows, tokens, words] = logits.dims();
    let upto = |x: Tensor<3>| x.slice([0..rows, 0..tokens - 1, 0..words]);
    let nll = likelihoods(batch, logits.clone()).sum_dim(1);
    let kl = divergences(upto(teacher), upto(logits)).sum_dim(1);
    let values = |data: TensorData| data.iter::<f32>().map(f64::from).collect::<Vec<_>>();
    let (nll, kl) = (values(nll.into_data()), values(kl.into_data()));
    let row = |row: usize| SequenceSums {
        nll: nll[row],
        kl: kl[row],
        depth: depth(row),
        count: (tokens - 1) as f64,
    };
    (0..rows).map(row).collect()
}

/// Negative log-likelihood, nats, of all tokens but the first of each sequence, B x (T - 1), by logits B x T x V.
pub(super) fn likelihoods(batch: &[&[u32]], logits: Tensor<3>) -> Tensor<2> {
    let [rows, tokens, words] = logits.dims();
    let wanted: Vec<i64> = batch.iter().flat_map(|row| row[1..].iter().map(|&id| i64::from(id))).collect();
    let device = logits.device().without_autodiff();
    let wanted = Tensor::<3, Int>::from_data(TensorData::new(wanted, [rows, tokens - 1, 1]), &device);
    let logits = logits.slice([0..rows, 0..tokens - 1, 0..words]);
    -log_softmax(logits, 2).gather(2, wanted).squeeze_dim::<2>(2)
}
