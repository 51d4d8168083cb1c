//! Reads the JSON Lines encoding, line by line, plain or compressed.

use super::assemble::Assembler;
use super::json::{Field, Object};
use super::limits::REQUEST_TOKENS;
use super::lines::{self, Input};
use super::names::Named;
use super::rules::Shape;
use super::{Header, Phase, Request, Role, in_line};
use crate::error::{InputError, Result};
use std::path::Path;

/// The lines of a trace.
pub(super) struct Lines {
    lines: lines::Lines,
    ids: Vec<u64>,
}

impl Lines {
    /// Opens `path`: gzip for `.gz`, zstd for `.zst`, plain for everything else.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Lines { lines: lines::Lines::new(Input::open(path)?), ids: Vec::new() })
    }

    /// The header, which must be the first line.
    pub fn header(&mut self) -> Result<Header> {
        let Some(text) = self.lines.next()? else {
            return Err(InputError::expected("a header line").found("an empty file").line(1).into());
        };
        parse_header(text).map_err(|error| in_line(error, Some(1)))
    }

    /// Reads one line into `assembler`. False at the end of the file.
    pub fn step(&mut self, assembler: &mut Assembler) -> Result<bool> {
        let line = self.lines.count() + 1;
        let Some(text) = self.lines.next()? else { return Ok(false) };
        take_line(text, Some(line), assembler, &mut self.ids).map_err(|error| in_line(error, Some(line)))?;
        Ok(true)
    }
}

/// Reads a header line.
pub(super) fn parse_header(text: &str) -> Result<Header> {
    let object = Object::parse(text)?;
    let kind = object.need("type")?;
    if kind.text().ok().as_deref() != Some("header") {
        return Err(kind.bad("\"header\" on the first line"));
    }
    Header::from_object(&object)
}

/// Reads any other line into `assembler`; `ids` is scratch space.
fn take_line(text: &str, line: Option<u64>, assembler: &mut Assembler, ids: &mut Vec<u64>) -> Result<()> {
    let object = Object::parse(text)?;
    let kind = object.need("type")?;
    match kind.text().unwrap_or_default().as_ref() {
        "tokens" => take_tokens(&object, assembler, ids),
        "request" => take_request(&object, line, assembler),
        "route" => take_route(&object, assembler),
        "header" => Err(kind.bad("one header only, on the first line")),
        _ => Err(kind.bad("\"route\", \"request\" or \"tokens\"")),
    }
}

#[cfg(feature = "parquet")]
/// Reads a line that must be a definition of one type, `route` or `request`.
pub(super) fn take_definition(text: &str, wanted: &str, assembler: &mut Assembler) -> Result<()> {
    let object = Object::parse(text)?;
    let kind = object.need("type")?;
    if kind.text().ok().as_deref() != Some(wanted) {
        return Err(kind.bad(format!("\"{wanted}\"")));
    }
    if wanted == "route" { take_route(&object, assembler) } else { take_request(&object, None, assembler) }
}

fn take_route(object: &Object, assembler: &mut Assembler) -> Result<()> {
    object.only("a route", &["type", "id", "steps"])?;
    let id = object.need("id")?.whole(0, u64::MAX)?;
    assembler.route(id, &object.need("steps")?.text()?)
}

fn take_request(object: &Object, line: Option<u64>, assembler: &mut Assembler) -> Result<()> {
    let known = ["type", "id", "arrival_s", "prompt_tokens", "output_tokens", "prefix"];
    object.only("a request", &known)?;
    let mut prefix = Vec::new();
    if let Some(hashes) = object.get("prefix") {
        hashes.wholes(&mut prefix)?;
    }
    let prompt_tokens = object.need("prompt_tokens")?.whole(1, REQUEST_TOKENS - 1)?;
    let request = Request {
        id: object.need("id")?.whole(0, u64::MAX)?,
        arrival: object.need("arrival_s")?.seconds()?,
        prompt_tokens: prompt_tokens as u32,
        output_tokens: object.need("output_tokens")?.whole(1, REQUEST_TOKENS - prompt_tokens)? as u32,
        priority: 0,
        prefix,
        runs: Vec::new(),
    };
    assembler.request(request, line)
}

fn take_tokens(object: &Object, assembler: &mut Assembler, ids: &mut Vec<u64>) -> Result<()> {
    let known = ["type", "request", "start", "phase", "routes", "role", "accepted", "experts"];
    object.only("a run of tokens", &known)?;
    let request = object.need("request")?.whole(0, u64::MAX)?;
    let start = object.need("start")?.whole(0, REQUEST_TOKENS)?;
    let phase = object.need("phase")?.choice::<Phase>()?;
    let role = object.get("role").map(|role| role.choice::<Role>()).transpose()?.unwrap_or_default();
    let accepted = object.get("accepted").map(|accepted| accepted.yeses()).transpose()?;
    object.need("routes")?.wholes(ids)?;
    if let Some(experts) = object.get("experts") {
        take_experts(&experts, assembler, ids)?;
    }
    let shape = Shape { start, phase, role, tokens: ids.len(), accepted: accepted.as_deref() };
    assembler.run(request, shape, ids)
}

/// Holds the experts of a run against its routes: a list for each token, in it one for each step of its route, in it ids; and counts
/// them.
fn take_experts(experts: &Field, assembler: &mut Assembler, ids: &[u64]) -> Result<()> {
    let found: Vec<Vec<Vec<u32>>> = serde_json::from_str(experts.raw).map_err(|error| {
        experts.bad(format!("lists of lists of expert ids, a list for each token ({error})"))
    })?;
    let bad = |found: String, what: &str| InputError::expected(what).key(experts.key).found(found);
    if found.len() != ids.len() {
        let what = format!("one for each of {} routes", ids.len());
        return Err(bad(format!("{} lists", found.len()), &what).into());
    }
    for (token, (steps, id)) in found.iter().zip(ids).enumerate() {
        match assembler.steps(*id) {
            Some(wanted) if wanted != steps.len() => {
                let what = format!("one for each of {wanted} steps of route {id}");
                return Err(bad(format!("{} lists for token {token}", steps.len()), &what).into());
            }
            _ => {}
        }
    }
    found.iter().zip(ids).try_for_each(|(steps, id)| assembler.took(*id, steps))?;
    if assembler.keeps_experts {
        assembler.next_experts = Some(serde_json::to_string(&found).expect("numbers are JSON").into());
    }
    Ok(())
}

/// The line of a request, without its end.
pub(super) fn request_line(request: &Request) -> String {
    use std::fmt::Write;
    let mut line = format!(
        r#"{{"type":"request","id":{},"arrival_s":{},"prompt_tokens":{},"output_tokens":{}"#,
        request.id,
        super::json::seconds_text(request.arrival),
        request.prompt_tokens,
        request.output_tokens
    );
    for (index, hash) in request.prefix.iter().enumerate() {
        let before = if index == 0 { ",\"prefix\":[" } else { "," };
        write!(line, "{before}{hash}").expect("a string takes all text");
    }
    line.push_str(if request.prefix.is_empty() { "}" } else { "]}" });
    line
}

/// The line of a run, without its end, in `line`.
pub(super) fn run_line(request: u64, run: &super::Run, line: &mut String) {
    use std::fmt::Write;
    line.clear();
    let (start, phase) = (run.start, run.phase.name());
    let start =
        write!(line, r#"{{"type":"tokens","request":{request},"start":{start},"phase":"{phase}","routes":["#);
    start.expect("a string takes all text");
    for (index, route) in run.routes.iter().enumerate() {
        let before = if index == 0 { "" } else { "," };
        write!(line, "{before}{route}").expect("a string takes all text");
    }
    line.push(']');
    if run.role != Role::Plain {
        write!(line, r#","role":"{}""#, run.role.name()).expect("a string takes all text");
    }
    for (index, kept) in run.accepted.iter().enumerate() {
        let before = if index == 0 { ",\"accepted\":[" } else { "," };
        write!(line, "{before}{kept}").expect("a string takes all text");
    }
    line.push_str(if run.accepted.is_empty() { "}" } else { "]}" });
}

/// The line of a route, without its end.
pub(super) fn route_line(index: u32, route: &super::Route) -> String {
    format!(r#"{{"type":"route","id":{index},"steps":"{route}"}}"#)
}
