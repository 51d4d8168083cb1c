//! `radialsim execute --perplexity`: how well a model predicts texts under its routing.

use super::{Args, Executor, ExecutorOptions, Gpu, Routing};
use crate::cli::{print, say};
use radialsim::error::{InputError, Result};
use radialsim::quality::{NetworkWorth, QualityTable, Texts, read_texts};
use radialsim::report::Staged;
use radialsim::trace::Route;
use radialsim::weights::Checkpoint;
use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

/// Measures.
pub fn run(args: &Args) -> Result<()> {
    let checkpoint = Checkpoint::open(&args.weights)?;
    let texts = texts(args, &checkpoint)?;
    let teacher = args.teacher.as_deref().map(|path| Teacher::open(args, path, &texts)).transpose()?;
    let routing = args.routing(&checkpoint)?;
    let (policy, visibility) = (args.policy_for(&routing), args.visibility_for(&routing));
    let dense =
        matches!(&routing, Routing::Fixed(route, _) if *route == Route::dense(checkpoint.model().layers));
    let name = args.name.clone().unwrap_or_else(|| args.routing_name(dense));
    let first =
        teacher.as_ref().map_or_else(|| "dense".into(), |teacher| teacher.checkpoint.model().name.clone());
    // A model that takes every layer is its own teacher.
    let beside = args.teacher.is_some() || !dense;
    if beside && first == name {
        let expected = "a name of its own for the network, which is not that of the teacher";
        return Err(InputError::expected(expected).key("--name").found(name).into());
    }
    let csv = args.csv.as_ref().map(Staged::create).transpose()?;
    let remark = args.expanded(&checkpoint).filter(|_| !args.quiet);
    remark.iter().for_each(|remark| say(&format!("note: {remark}")));
    let gpu = Rc::new(Gpu::open(args.adapter.as_deref())?);
    let options = ExecutorOptions {
        precision: args.precision.into(),
        // One more than the sequence, as a run counts the token that comes next.
        positions: texts.length as u32 + 1,
        ..ExecutorOptions::default()
    };
    let mut executor = Executor::new(gpu.clone(), &checkpoint, options)?;
    let other = teacher.as_ref().map(|teacher| Executor::new(gpu, &teacher.checkpoint, options));
    let mut other = other.transpose()?;
    let (begin, mut said) = (Instant::now(), 0.0);
    let worth = executor.worth(other.as_mut(), &texts, (&routing, policy, visibility), |done| {
        let (spent, all) = (begin.elapsed().as_secs_f64(), texts.sequences.len());
        if !args.quiet && spent - said > 10.0 && done < all {
            said = spent;
            let left = spent / done as f64 * (all - done) as f64;
            say(&format!("{done} of {all} sequences; {left:.0} s left"));
        }
    })?;
    let mut rows = Vec::new();
    if beside {
        rows.push(NetworkWorth::of(&first, &worth.teacher, args.seed));
    }
    rows.push(NetworkWorth::of(&name, &worth.network, args.seed));
    let table = QualityTable::new(rows);
    if let Some(file) = csv {
        file.finish(|out| table.write(out))?;
    }
    let (sequences, length) = (texts.sequences.len(), texts.length);
    let about = format!("{sequences} sequences of {length} tokens; intervals: 90 %, by drawing sequences");
    print(&format!("{about}\n{}\n", table.words()))
}

/// The texts, as this model's tokenizer cuts them.
fn texts(args: &Args, checkpoint: &Checkpoint) -> Result<Texts> {
    let length = args.length as usize;
    let texts = read_texts(&args.perplexity, &checkpoint.tokenizer()?, length)?;
    Ok(texts.some((args.tokens as usize).div_ceil(length)))
}

/// Another model whose predictions are the measure.
struct Teacher {
    checkpoint: Checkpoint,
}

impl Teacher {
    /// Refused where it would cut the texts into other tokens: its predictions would be of something else.
    fn open(args: &Args, path: &Path, own: &Texts) -> Result<Teacher> {
        let checkpoint = Checkpoint::open(path)?;
        if texts(args, &checkpoint)? != *own {
            let expected = "a teacher that cuts these texts into the same tokens as the model";
            let found = "other tokens";
            return Err(InputError::expected(expected).key("--teacher").found(found).file(path).into());
        }
        Ok(Teacher { checkpoint })
    }
}

impl Args {
    /// What a table calls a network by its routing.
    fn routing_name(&self, dense: bool) -> String {
        let stem = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        match (&self.router, &self.oracle, &self.route) {
            (Some(router), ..) => stem(router),
            (_, Some((attention, feed_forward)), _) => format!("oracle {attention}, {feed_forward}"),
            (.., Some(_)) if dense => "dense".into(),
            (.., Some(route)) => format!("route {route}"),
            _ if dense => "dense".into(),
            _ => stem(&self.weights),
        }
    }
}
