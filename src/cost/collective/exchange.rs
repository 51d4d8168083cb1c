//! Price of bringing tokens to the devices of their experts and back, by DeepEP's two kernels.

use super::CollectivePrice;
use crate::cost::price_error::{EXTRAPOLATED, PriceError};
use crate::hw::{Exchange, ExchangeMode, ExchangePart, Level};
use crate::units::{SimTime, SourceKind};

/// One call: what every device brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExchangeCall {
    /// Devices that the experts are spread over, evenly.
    pub devices: u32,
    /// Tokens of each device.
    pub tokens: u32,
    /// Values of a token.
    pub hidden: u32,
    /// Experts of all devices.
    pub experts: u32,
    /// Experts that a token chooses.
    pub chosen: u32,
    /// Streaming multiprocessors that do it; the low-latency kernel does not ask.
    pub units: u32,
}

impl ExchangeCall {
    /// Bytes that a device sends, itself among the receivers: for each token and each chosen expert (low latency) or each device that has
    /// one of them (normal), the values in 8-bit floats with four bytes for each 128 and, of the low-latency kernel, 16 more (dispatch), or in
    /// 16 bits (combine): `num_fp8_bytes`, `num_bf16_bytes` of DeepEP's tests/test_low_latency.py.
    pub fn bytes(&self, mode: ExchangeMode, part: ExchangePart) -> f64 {
        let hidden = f64::from(self.hidden);
        let extra = if mode == ExchangeMode::LowLatency { 16.0 } else { 0.0 };
        let token = match part {
            ExchangePart::Dispatch => hidden + hidden / 128.0 * 4.0 + extra,
            ExchangePart::Combine => 2.0 * hidden,
        };
        let copies = match mode {
            ExchangeMode::LowLatency => f64::from(self.chosen),
            ExchangeMode::Normal => self.receivers(),
        };
        f64::from(self.tokens) * copies * token
    }

    /// Devices that have one of a token's experts, on average, where all are chosen alike.
    pub fn receivers(&self) -> f64 {
        let each = (self.experts / self.devices.max(1)).max(1);
        // Chance that none of a device's experts is chosen: without putting back.
        let none = (0..self.chosen).map(|taken| {
            let left = f64::from(self.experts) - f64::from(taken);
            ((left - f64::from(each)) / left.max(1.0)).max(0.0)
        });
        f64::from(self.devices) * (1.0 - none.product::<f64>())
    }
}

/// Microseconds by these constants.
pub(crate) fn us(constants: &Exchange, call: &ExchangeCall) -> f64 {
    let each = match constants.mode {
        ExchangeMode::LowLatency => f64::from(call.experts),
        ExchangeMode::Normal => f64::from(call.units.max(1)),
    };
    let gb_per_s = constants.gb_per_s.min(constants.gb_per_s_each * each);
    constants.start_us
        + constants.us_per_expert * f64::from(call.experts)
        + constants.us_per_value * f64::from(call.hidden)
        + constants.us_per_token * f64::from(call.tokens) / each
        + call.bytes(constants.mode, constants.part) / (1e3 * gb_per_s)
}

/// The exchanges that were measured on a level, or on the one that lends to it.
#[derive(Clone, Debug)]
pub struct Exchanges {
    known: Vec<Exchange>,
    /// Bandwidth of the measured level over that of this one.
    ratio: f64,
    lent: Option<PriceError>,
}

impl Exchanges {
    /// Those of a level.
    pub fn new(level: &Level) -> Exchanges {
        let own = level.collectives.as_ref();
        let lender = level.lender.as_ref().and_then(|lender| lender.collectives.as_ref());
        let lent = level.lent.as_ref().filter(|_| own.is_none());
        let Some(all) = own.or(lender) else {
            return Exchanges { known: Vec::new(), ratio: 1.0, lent: None };
        };
        Exchanges {
            known: all.exchanges.clone(),
            ratio: all.gb_per_s / level.gb_per_s.value,
            lent: lent.map(|loan| PriceError::new(loan.error.mean, loan.error.interval)),
        }
    }

    /// Whether all four were measured: two modes, there and back.
    pub fn are_known(&self) -> bool {
        let all = [ExchangeMode::LowLatency, ExchangeMode::Normal]
            .into_iter()
            .flat_map(|mode| [ExchangePart::Dispatch, ExchangePart::Combine].map(|part| (mode, part)));
        all.into_iter().all(|wanted| self.known.iter().any(|known| (known.mode, known.part) == wanted))
    }

    /// The price of a call; none where nobody measured such an exchange on this level or one like it. Bandwidths of another level go with
    /// its own.
    pub fn price(
        &self,
        mode: ExchangeMode,
        part: ExchangePart,
        call: &ExchangeCall,
    ) -> Option<CollectivePrice> {
        let known = self.known.iter().find(|known| (known.mode, known.part) == (mode, part))?;
        if call.devices <= 1 || call.tokens == 0 {
            return Some(CollectivePrice::NOTHING);
        }
        let here = Exchange {
            gb_per_s: known.gb_per_s / self.ratio,
            gb_per_s_each: known.gb_per_s_each / self.ratio,
            ..known.clone()
        };
        let measured = PriceError::new(known.error.mean, known.error.interval);
        let (source, error) = match self.lent {
            Some(lent) => (SourceKind::Transferred, measured.and(lent)),
            None if self.ratio != 1.0 => (SourceKind::Extrapolated, measured.times(EXTRAPOLATED)),
            None => (SourceKind::Fitted, measured),
        };
        let (least, most) = known.tokens;
        let seen = call.devices == known.devices && (least..=most).contains(&call.tokens);
        let (source, error) = match seen {
            true => (source, error),
            false => (source.join(SourceKind::Extrapolated), error.times(EXTRAPOLATED)),
        };
        Some(CollectivePrice { time: SimTime::from_us(us(&here, call)), source, error: Some(error) })
    }
}
