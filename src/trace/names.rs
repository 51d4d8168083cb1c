//! The words of the format for each closed set of choices.

use super::{Granularity, KvAction, Order, Phase, Role, RouterDevice, RouterKind, RouterWhen};

/// A closed set of choices with a word for each.
pub(super) trait Named: Copy + Eq + 'static {
    const NAMES: &'static [(Self, &'static str)];

    fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(value, _)| *value)
    }

    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(value, _)| *value == self).expect("every choice has a name").1
    }

    /// For messages: `one of monotone, any`.
    fn choices() -> String {
        let names: Vec<_> = Self::NAMES.iter().map(|(_, name)| *name).collect();
        format!("one of {}", names.join(", "))
    }
}

impl Named for Order {
    const NAMES: &'static [(Self, &'static str)] = &[(Order::Monotone, "monotone"), (Order::Any, "any")];
}

impl Named for Granularity {
    const NAMES: &'static [(Self, &'static str)] = &[
        (Granularity::Token, "token"),
        (Granularity::Sequence, "sequence"),
        (Granularity::Position, "position"),
        (Granularity::Batch, "batch"),
    ];
}

impl Named for KvAction {
    const NAMES: &'static [(Self, &'static str)] = &KvAction::ALL;
}

impl Named for RouterKind {
    const NAMES: &'static [(Self, &'static str)] = &[
        (RouterKind::None, "none"),
        (RouterKind::Fixed, "fixed"),
        (RouterKind::Threshold, "threshold"),
        (RouterKind::OracleThreshold, "oracle_threshold"),
        (RouterKind::Mlp, "mlp"),
        (RouterKind::ExpertChoice, "expert_choice"),
    ];
}

impl Named for RouterWhen {
    const NAMES: &'static [(Self, &'static str)] = &[
        (RouterWhen::PerHop, "per_hop"),
        (RouterWhen::PerLayer, "per_layer"),
        (RouterWhen::Upfront, "upfront"),
        (RouterWhen::PerSequence, "per_sequence"),
    ];
}

impl Named for RouterDevice {
    const NAMES: &'static [(Self, &'static str)] =
        &[(RouterDevice::Gpu, "gpu"), (RouterDevice::Host, "host")];
}

impl Named for Phase {
    const NAMES: &'static [(Self, &'static str)] = &[(Phase::Prefill, "prefill"), (Phase::Decode, "decode")];
}

/// Without [`Role::Plain`], which is the absence of the key.
impl Named for Role {
    const NAMES: &'static [(Self, &'static str)] =
        &[(Role::Draft, "draft"), (Role::Verify, "verify"), (Role::Recompute, "recompute")];
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agrees_with_serde<T: Named + serde::Serialize + serde::de::DeserializeOwned + std::fmt::Debug>(
        count: usize,
    ) {
        assert_eq!(T::NAMES.len(), count);
        for (value, name) in T::NAMES {
            assert_eq!(serde_json::to_string(value).unwrap(), format!("\"{name}\""));
            assert_eq!(T::from_name(name), Some(*value));
            assert_eq!(value.name(), *name);
        }
        assert_eq!(T::from_name("nonsense"), None);
    }

    #[test]
    fn names_agree_with_the_derived_ones() {
        agrees_with_serde::<Order>(2);
        agrees_with_serde::<Granularity>(4);
        agrees_with_serde::<KvAction>(7);
        agrees_with_serde::<RouterKind>(6);
        agrees_with_serde::<RouterWhen>(4);
        agrees_with_serde::<RouterDevice>(2);
        agrees_with_serde::<Phase>(2);
        agrees_with_serde::<Role>(3);
    }
}
