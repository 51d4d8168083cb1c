//! What attention data parallelism goes with.

use super::Scenario;
use super::split::Split;
use crate::batch::Policy;
use crate::error::{InputError, Result};
use crate::trace::Trace;

impl Scenario {
    /// Refuses what engines that share experts do not go with. `late`: routes are drawn when their request begins.
    pub(super) fn ranks_go_together(
        &self,
        split: &Split,
        (name, policy): (&str, Policy),
        (trace, late): (&Trace, bool),
    ) -> Result<()> {
        let Split { spec, of } = split;
        let wrong = |key: String, found: String, expected: &str| -> Result<()> {
            Err(InputError::expected(expected).key(key).found(found).into())
        };
        let own = |key: &str| format!("{of}.{key}");
        if spec.data == 0 {
            return wrong(own("data"), "0".into(), "a number of engines, at least 1");
        }
        if spec.data == 1 {
            return Ok(());
        }
        if spec.experts != spec.data {
            let expected = format!(
                "as many as parallel.experts ({}), since each engine is one device that has a part of the experts; engines that share nothing are replicas",
                spec.experts
            );
            return wrong(own("data"), spec.data.to_string(), &expected);
        }
        if spec.replicas != 1 {
            return wrong(
                own("replicas"),
                spec.replicas.to_string(),
                "1 beside data: several groups of engines are not modelled",
            );
        }
        if spec.pipeline != 1 || spec.placement.is_some() || spec.apart.is_some() {
            let expected =
                "1 beside pipeline, placement and apart: engines that share experts have all layers alone";
            return wrong(own("data"), spec.data.to_string(), expected);
        }
        if let Policy::Queued { .. } = policy {
            return wrong(
                format!("variants.{name}.policy"),
                policy.name().into(),
                "a policy without queues beside parallel.data",
            );
        }
        let routes = trace.routes.len();
        if late || routes > 1 {
            let found = if late { "routes that differ".to_owned() } else { format!("{routes} routes") };
            let expected = "one route of all tokens beside parallel.data: engines of which one leaves out a layer with experts and another does not are not modelled";
            return wrong(format!("variants.{name}.routes"), found, expected);
        }
        Ok(())
    }
}
