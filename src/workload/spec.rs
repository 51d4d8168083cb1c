//! The key `workload.file` of a scenario: requests of a file, and what is done to them.

use super::arrivals::Times;
use super::file::{Reading, RequestFormat, TimeUnit, read};
use super::sessions::{SessionSpec, begin_together, forget_missing, share_prefixes};
use super::synthetic::prioritize;
use super::{Arrivals, PriorityShare, Remark, RequestSet, Selection, TokenCount};
use crate::error::{InputError, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The key `workload.file` of a scenario: requests of a file. What the keys of [`Reading`] and [`Selection`] do, they say there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSpec {
    /// The file; relative paths start from the folder of the scenario.
    pub path: PathBuf,
    /// [`Reading::format`].
    #[serde(default)]
    pub format: Option<RequestFormat>,
    /// [`Reading::time_unit`].
    #[serde(default)]
    pub time_unit: Option<TimeUnit>,
    /// [`Reading::time_column`].
    #[serde(default)]
    pub time_column: Option<String>,
    /// [`Reading::block_tokens`]. Where the file has conversations and no hashes, turns get hashes of blocks of so many tokens.
    #[serde(default)]
    pub block_tokens: Option<u32>,
    /// [`Reading::characters_per_token`].
    #[serde(default)]
    pub characters_per_token: Option<f64>,
    /// A tokenizer for [`Reading::tokenizer`]: a folder with one, or its `tokenizer.json`; relative paths start from the folder of the
    /// scenario.
    #[serde(default)]
    pub tokenizer: Option<PathBuf>,
    /// [`Reading::skip_empty`].
    #[serde(default)]
    pub skip_empty: bool,
    /// Makes turns of a conversation wait for each other. Absent: only those without an arrival of their own do, and pause as the file
    /// says.
    #[serde(default)]
    pub sessions: Option<SessionSpec>,
    /// Replaces the arrivals of the file, in the order of its arrivals; where turns wait for each other, those of first turns. Absent:
    /// those of the file.
    #[serde(default)]
    pub arrivals: Option<Arrivals>,
    /// Replaces the priorities of the file. Absent or empty: those of the file, or 0.
    #[serde(default)]
    pub priorities: Vec<PriorityShare>,
    /// [`Selection::time_scale`]. Absent: 1.
    #[serde(default = "one")]
    pub time_scale: f64,
    /// [`Selection::start_s`]. Absent: 0.
    #[serde(default)]
    pub start_s: f64,
    /// [`Selection::duration_s`].
    #[serde(default)]
    pub duration_s: Option<f64>,
    /// [`Selection::most_requests`].
    #[serde(default)]
    pub most_requests: Option<u32>,
    /// [`Selection::most_prompt_tokens`].
    #[serde(default)]
    pub most_prompt_tokens: Option<u32>,
    /// [`Selection::most_output_tokens`].
    #[serde(default)]
    pub most_output_tokens: Option<u32>,
}

fn one() -> f64 {
    1.0
}

impl FileSpec {
    /// All of a file, as it is.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let Selection { time_scale, start_s, duration_s, .. } = Selection::default();
        FileSpec {
            path: path.into(),
            format: None,
            time_unit: None,
            time_column: None,
            block_tokens: None,
            characters_per_token: None,
            tokenizer: None,
            skip_empty: false,
            sessions: None,
            arrivals: None,
            priorities: Vec::new(),
            time_scale,
            start_s,
            duration_s,
            most_requests: None,
            most_prompt_tokens: None,
            most_output_tokens: None,
        }
    }

    fn reading(&self, tokenizer: Option<TokenCount>) -> Reading {
        Reading {
            format: self.format,
            skip_empty: self.skip_empty,
            time_unit: self.time_unit,
            time_column: self.time_column.clone(),
            block_tokens: self.block_tokens,
            characters_per_token: self.characters_per_token,
            tokenizer,
            without_arrivals: self.arrivals.is_some(),
        }
    }

    fn options(&self) -> Selection {
        Selection {
            time_scale: self.time_scale,
            start_s: self.start_s,
            duration_s: self.duration_s,
            most_requests: self.most_requests,
            most_prompt_tokens: self.most_prompt_tokens,
            most_output_tokens: self.most_output_tokens,
        }
    }

    /// Reads the file, whose relative path starts from `folder`, draws what is drawn, and takes what is asked for.
    ///
    /// # Errors
    /// The first mistake in the file, and an option that is wrong or leaves no request.
    pub fn load(&self, folder: &Path, seed: u64) -> Result<RequestSet> {
        self.load_with(folder, seed, None)
    }

    /// The same, with the tokenizer that [`FileSpec::tokenizer`] names, where it names one.
    ///
    /// # Errors
    /// Those of [`FileSpec::load`].
    pub fn load_with(&self, folder: &Path, seed: u64, tokenizer: Option<TokenCount>) -> Result<RequestSet> {
        if let Some(named) = self.tokenizer.as_ref().filter(|_| tokenizer.is_none()) {
            let what = "no tokenizer, as none was read";
            return Err(InputError::expected(what).key("tokenizer").found(named.display()).into());
        }
        let mut load = read(folder.join(&self.path), &self.reading(tokenizer))?;
        let follow = load.turns.values().any(|link| link.follows);
        let sessions = self.sessions.or(follow.then(SessionSpec::default));
        if let Some(arrivals) = &self.arrivals {
            self.draw_arrivals(arrivals, sessions.is_some(), &mut load, seed)?;
        }
        prioritize(&mut load.requests, &self.priorities, seed)?;
        self.options().apply(&mut load)?;
        if let Some(clients) = &mut load.clients {
            clients.think.truncate(load.requests.len());
        }
        forget_missing(&mut load);
        let hashed = load.requests.iter().any(|request| !request.prefix.is_empty());
        if let Some(block) = self.block_tokens.filter(|_| !hashed && !load.turns.is_empty()) {
            share_prefixes(&mut load, block)?;
        }
        match sessions {
            Some(_) if load.turns.is_empty() && self.sessions.is_none() => {}
            Some(sessions) => sessions.apply(&mut load, seed)?,
            None if load.turns.is_empty() || load.clients.is_some() => {}
            None => {
                let why = "turns follow an earlier one and come at their own times, whether or not that has ended; with `sessions` \
                    they wait for its end";
                load.remarks.push(Remark::new("sessions", load.turns.len(), why));
            }
        }
        Ok(load)
    }

    fn draw_arrivals(
        &self,
        arrivals: &Arrivals,
        sessions: bool,
        load: &mut RequestSet,
        seed: u64,
    ) -> Result<()> {
        arrivals.check()?;
        let clients = arrivals.clients(load.requests.len(), seed)?;
        if sessions && clients.is_some() {
            let what = "arrivals of first turns, as later turns wait for the end of earlier ones";
            return Err(InputError::expected(what).key("arrivals").found("Clients and sessions").into());
        }
        let mut times = Times::new(arrivals, seed);
        for request in &mut load.requests {
            if !(sessions && load.turns.contains_key(&request.id)) {
                request.arrival = times.next()?;
            }
        }
        if sessions {
            load.turns.values_mut().for_each(|link| link.follows = true);
            begin_together(&mut load.requests, &load.turns, |_| true);
        }
        let value = ron::to_string(arrivals).unwrap_or_default();
        let why = format!("replace the arrivals of the file, seed {seed}");
        load.remarks.retain(|remark| remark.key != "arrivals");
        load.remarks.push(Remark::new("arrivals", value, why));
        load.clients = clients;
        Ok(())
    }
}
