//! The mean divergence of a network whose head stays as it is, with its derivative worked out at the logits: they are as many as words times tokens, and a
//! record of every operation on them would be most of a training's memory.

use super::network::Network;
use burn::tensor::Tensor;
use rayon::prelude::*;

/// Mean KL divergence, nats, of the teacher's predictions from the student's, and a sum that has the same derivative by what the student was made of.
///
/// With p and q the probabilities of teacher and student, the derivative of `sum p log(p / q)` by the student's logits is `q - p`. `head` has last norm and head of
/// both, `teacher` is its stream behind the last layer, B x T x D, and `normed` that of the student behind the last norm, B T x D, differentiable.
pub(super) fn mean_divergence(head: &Network, teacher: Tensor<3>, normed: Tensor<2>) -> (f64, Tensor<1>) {
    let [count, _] = normed.dims();
    let said = |rows: Tensor<2>| head.said(rows).into_data();
    let teacher = said(head.last_normed(teacher));
    let mut student = said(normed.clone().inner());
    let words = student.shape()[1];
    let teacher = teacher.as_slice::<f32>().expect("logits are F32");
    let rows = student.as_mut_slice::<f32>().expect("logits are F32");
    let each = |(q, p): (&mut [f32], &[f32])| divergence(q, p, count as f64);
    let kl: Vec<f64> =
        rows.par_chunks_exact_mut(words).zip(teacher.par_chunks_exact(words)).map(each).collect();
    let by_logits = Tensor::<2>::from_data(student, head.device());
    let by_normed = head.said_by(by_logits).autodiff();
    (kl.iter().sum::<f64>() / count as f64, (normed * by_normed).sum())
}

/// The divergence at one token; the student's logits become its derivative by them, over `count`.
fn divergence(student: &mut [f32], teacher: &[f32], count: f64) -> f64 {
    let most = |row: &[f32]| row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let (high, high_teacher) = (most(student), most(teacher));
    let (mut all, mut all_teacher, mut off) = (0.0f64, 0.0f64, 0.0f64);
    let mut shares = vec![0.0f32; teacher.len()];
    for ((q, p), share) in student.iter_mut().zip(teacher).zip(&mut shares) {
        let (below, below_teacher) = (*q - high, p - high_teacher);
        *q = libm::expf(below);
        *share = libm::expf(below_teacher);
        all += f64::from(*q);
        all_teacher += f64::from(*share);
        off += f64::from(*share) * f64::from(below_teacher - below);
    }
    let (each, each_teacher) = ((1.0 / (all * count)) as f32, (1.0 / (all_teacher * count)) as f32);
    student.iter_mut().zip(&shares).for_each(|(q, p)| *q = *q * each - p * each_teacher);
    off / all_teacher - libm::log(all_teacher) + libm::log(all)
}
