//! What a search found.

use serde::Serialize;

/// One finding, at one setting of the axes that the search does not move.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// What kind of finding: `break-even`, `capacity`, `elasticity`.
    pub kind: &'static str,
    /// The axes that were held, with what they had: `hardware = nvidia-h100-sxm, batch = 8`.
    pub at: String,
    /// The variant that it is about.
    pub variant: String,
    /// What moved: the name of an axis, or a key.
    pub moved: String,
    /// What it is about, the same at every setting: the metric and what it is held against, or what must hold.
    pub about: String,
    /// The finding: a value of what moved, or an elasticity. None where there is none.
    pub value: Option<f64>,
    /// Lower end of what is known about it.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// In words.
    pub words: String,
    /// Change of the metric in percent when a key is lower, and when it is higher; for elasticities.
    #[serde(skip)]
    pub swing: Option<(f64, f64)>,
}
