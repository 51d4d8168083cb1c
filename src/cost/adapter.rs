//! Kernels that were measured one by one: the terms of their shape ([`crate::kernel::terms`]), each times a constant.

use super::{Device, EXTRAPOLATED, Learned, PriceError};
use crate::hw::{AdapterKernel, Hardware};
use crate::kernel::{KINDS, Kernel, MOST_TERMS, Terms, kind, terms};
use crate::units::{Dtype, SimTime, SourceKind};

/// A kernel's constants, ready to price.
#[derive(Clone, Debug)]
struct Known {
    kind: usize,
    weights: Option<Dtype>,
    tile: (u32, u32),
    /// Picoseconds of each term.
    ps: Terms,
    /// Least and largest value of each term among the fitted rows.
    range: [(f64, f64); MOST_TERMS],
    error: PriceError,
    /// Mean error in percent where it is lent to another device.
    lent: f64,
}

/// The kernels of a device that were measured one by one.
#[derive(Clone, Debug, Default)]
pub(super) struct AdapterPrices {
    kernels: Vec<Known>,
}

impl AdapterPrices {
    /// Of a checked profile.
    pub(super) fn new(hw: &Hardware) -> AdapterPrices {
        AdapterPrices {
            kernels: hw.measured.iter().flat_map(|all| &all.kernels).filter_map(Known::new).collect(),
        }
    }

    /// What is known of a kernel; nothing where it was not measured. Of the forms of a product the quickest is taken, as the executor does.
    pub(super) fn time(&self, device: &Device, kernel: &Kernel) -> Option<Learned> {
        if self.kernels.is_empty() {
            return None;
        }
        let (kind, weights) = kind(kernel);
        let forms = self.kernels.iter().filter(|known| known.kind == kind && known.weights == weights);
        let priced = forms.map(|known| {
            let terms = terms(kernel, known.tile, device.units);
            let ps: f64 = known.ps.iter().zip(terms).map(|(ps, term)| ps * term).sum();
            let within =
                terms.iter().zip(known.range).all(|(&term, (least, most))| least <= term && term <= most);
            (ps, within, known)
        });
        let (ps, within, known) = priced.min_by(|a, b| a.0.total_cmp(&b.0))?;
        let source = if within { SourceKind::Fitted } else { SourceKind::Extrapolated };
        Some(Learned::by(SimTime::from_ps(ps as u64), source, known.error, known.lent, device.altered))
    }
}

impl Known {
    fn new(of: &AdapterKernel) -> Option<Known> {
        let kind = KINDS.iter().position(|(name, ..)| *name == of.name)?;
        let mut ps = [0.0; MOST_TERMS];
        let mut range = [(0.0, f64::INFINITY); MOST_TERMS];
        for (index, name) in KINDS[kind].2.iter().enumerate() {
            ps[index] = of.ns.get(*name).map_or(0.0, |ns| ns * 1e3);
            range[index] = of.range.get(*name).copied().unwrap_or(range[index]);
        }
        let tile = of.tile.unwrap_or((1, 1));
        let evidence = &of.evidence;
        let error = PriceError::new(evidence.held_error, evidence.interval());
        let lent = EXTRAPOLATED * evidence.held_error;
        Some(Known { kind, weights: of.weights, tile, ps, range, error, lent })
    }
}
