//! The first line of a trace, to and from its text.

use super::json::Object;
use super::{
    Granularity, Header, KvAction, MOST_LAYERS, Order, Router, RouterDevice, RouterKind, RouterWhen,
};
use crate::error::{Error, InputError, Result};
use serde_json::{Map, Value, json};

const KEYS: [&str; 12] = [
    "type",
    "format",
    "version",
    "model",
    "layers",
    "order",
    "reuse",
    "granularity",
    "kv",
    "router",
    "max_hops",
    "source",
];

impl Header {
    /// The header of a trace in which every token takes every layer of a pool of `layers`, in order.
    pub fn dense(model: impl Into<String>, layers: u32) -> Self {
        Header {
            model: model.into(),
            layers,
            order: Order::Monotone,
            reuse: false,
            granularity: Granularity::Token,
            kv: KvAction::Write,
            router: Router::costless(RouterKind::None),
            max_hops: None,
            source: String::new(),
        }
    }

    /// Reads the header line.
    pub(super) fn from_object(object: &Object) -> Result<Self> {
        let format = object.need("format")?;
        if format.text().ok().as_deref() != Some("router-trace") {
            return Err(format.bad("\"router-trace\""));
        }
        let version = object.need("version")?;
        if version.raw != "1" {
            return Err(version.bad("1, the only version that this program reads"));
        }
        object.only("a header", &KEYS)?;
        let max_hops = object.get("max_hops");
        Ok(Header {
            model: object.need("model")?.text()?.into_owned(),
            layers: object.need("layers")?.whole(1, MOST_LAYERS.into())? as u32,
            order: object.need("order")?.choice()?,
            reuse: object.need("reuse")?.yes()?,
            granularity: object.need("granularity")?.choice()?,
            kv: object.need("kv")?.choice()?,
            router: router(object.need("router")?.raw)?,
            max_hops: max_hops
                .map(|hops| hops.whole(1, u32::MAX.into()))
                .transpose()?
                .map(|hops| hops as u32),
            source: object.need("source")?.text()?.into_owned(),
        })
    }

    /// What the header line says of the router.
    pub(super) fn router_json(&self) -> Value {
        let mut router = Map::new();
        router.insert("kind".into(), json!(self.router.kind));
        if let Some(when) = self.router.when {
            router.insert("when".into(), json!(when));
        }
        if let Some(hidden) = self.router.hidden {
            router.insert("hidden".into(), json!(hidden));
        }
        if self.router.device != RouterDevice::Gpu {
            router.insert("device".into(), json!(self.router.device));
        }
        for (key, value) in &self.router.extra {
            router.insert(key.clone(), value.clone());
        }
        Value::Object(router)
    }

    /// The header line, without its end.
    pub(super) fn line(&self) -> String {
        let mut line = json!({
            "type": "header", "format": "router-trace", "version": 1, "model": self.model, "layers": self.layers,
            "order": self.order, "reuse": self.reuse, "granularity": self.granularity, "kv": self.kv,
            "router": self.router_json(),
        });
        if let (Some(hops), Value::Object(line)) = (self.max_hops, &mut line) {
            line.insert("max_hops".into(), json!(hops));
        }
        line["source"] = json!(self.source);
        line.to_string()
    }
}

fn router(text: &str) -> Result<Router> {
    if !text.starts_with('{') {
        return Err(InputError::expected("an object with the key kind").key("router").found(text).into());
    }
    let within = |error: Error| match error {
        Error::Input(mut bad) => {
            bad.key = match bad.key.take() {
                Some(key) => Some(format!("router.{key}")),
                None => Some("router".into()),
            };
            Error::Input(bad)
        }
        other => other,
    };
    let object = Object::parse(text).map_err(within)?;
    let read = || -> Result<Router> {
        let choice = object.get("when").map(|when| when.choice::<RouterWhen>());
        let hidden = object.get("hidden").map(|hidden| hidden.whole(1, u32::MAX.into()));
        let device = object.get("device").map(|device| device.choice::<RouterDevice>());
        let mut router = Router {
            kind: object.need("kind")?.choice()?,
            when: choice.transpose()?,
            hidden: hidden.transpose()?.map(|hidden| hidden as u32),
            device: device.transpose()?.unwrap_or(RouterDevice::Gpu),
            extra: Map::new(),
        };
        for (key, raw) in object.entries() {
            if !["kind", "when", "hidden", "device"].contains(&key) {
                let value = serde_json::from_str(raw).map_err(|error| {
                    let what = format!("a JSON value with finite numbers ({error})");
                    InputError::expected(what).key(key).found(raw)
                })?;
                router.extra.insert(key.to_owned(), value);
            }
        }
        Ok(router)
    };
    read().map_err(within)
}

/// The same rules for a header that did not come from a file.
///
/// # Errors
/// A pool of no layers or too many, a bound of zero, and router keys under `extra` that have a field of their own.
pub(super) fn check(header: &Header) -> Result<()> {
    let bad = |key: &str, found: &dyn std::fmt::Display, what: &str| {
        Err(InputError::expected(what).key(key).found(found).into())
    };
    if header.layers == 0 || header.layers > MOST_LAYERS {
        return bad("layers", &header.layers, "a whole number from 1 to 65535");
    }
    if header.max_hops == Some(0) {
        return bad("max_hops", &0, "at least 1");
    }
    if header.router.hidden == Some(0) {
        return bad("router.hidden", &0, "at least 1");
    }
    for key in ["kind", "when", "hidden", "device"] {
        if header.router.extra.contains_key(key) {
            return bad("router", &key, "only keys under `extra` that have no field of their own");
        }
    }
    Ok(())
}
