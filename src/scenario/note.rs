//! What a run assumes, with the reason.

/// Something that a result rests on and nobody measured.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Note {
    /// The key, or what it is about.
    pub key: String,
    /// Its value, where it has one.
    pub value: String,
    /// Why it was assumed.
    pub why: String,
    /// Whether it is probably a mistake: a number in another unit than its key's.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub doubt: bool,
    /// What it is about.
    #[serde(skip)]
    pub about: About,
}

/// What a note is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum About {
    /// A constant of the device.
    Device,
    /// What runs: the model, the requests, settings.
    Run,
}

impl Note {
    /// One about what runs.
    pub fn new(key: impl Into<String>, value: impl ToString, why: impl Into<String>) -> Self {
        Note { key: key.into(), value: value.to_string(), why: why.into(), doubt: false, about: About::Run }
    }

    /// One about a constant of the device.
    pub(super) fn of_device(key: impl Into<String>, value: impl ToString, why: impl Into<String>) -> Self {
        Note { about: About::Device, ..Note::new(key, value, why) }
    }

    /// Something that is probably a mistake.
    pub(super) fn doubtful(key: impl Into<String>, value: impl ToString, why: impl Into<String>) -> Self {
        Note { doubt: true, ..Note::new(key, value, why) }
    }
}
