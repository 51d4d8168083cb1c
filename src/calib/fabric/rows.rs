//! Tables of measured collectives: `nccl*.csv` and `allreduce_custom*.csv`, `allreduce_vllm*.csv`, `wideep_deepep_ll*.csv`,
//! `wideep_deepep_normal*.csv` as NVIDIA's aiconfigurator writes them, and of pairs of devices as Vidur does.

use crate::calib::table::{Csv, hexadecimal};
use crate::cost::ExchangeCall;
use crate::error::{Error, InputError, Result};
use crate::hw::{CallMode, ExchangeMode, ExchangePart, Library, Operation};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Times of one operation by one version of a library, in one mode.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectiveSeries {
    /// What is done.
    pub operation: Operation,
    /// By whom.
    pub library: Library,
    /// Its version, with the format of the values where that is not 16 bits.
    pub version: String,
    /// How it is called.
    pub mode: CallMode,
    /// Bytes and microseconds by the number of devices, sizes rising.
    pub by_devices: BTreeMap<u32, Vec<(u64, f64)>>,
}

impl CollectiveSeries {
    /// Numbers in its version, by which versions are ordered; what is not of 16 bits comes before all.
    pub(super) fn age(&self) -> (bool, Vec<u64>) {
        let numbers =
            self.version.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok());
        (!self.version.ends_with("int8"), numbers.collect())
    }
}

/// A measured way of an exchange.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExchangeRow {
    /// Which kernel.
    pub mode: ExchangeMode,
    /// Which way.
    pub part: ExchangePart,
    /// The call.
    pub call: ExchangeCall,
    /// Measured microseconds.
    pub us: f64,
}

/// What was read.
#[derive(Clone, Debug, Default)]
pub struct FabricTables {
    /// Times by size, none twice.
    pub series: Vec<CollectiveSeries>,
    /// Series that repeat another one row by row.
    pub copies: usize,
    /// Exchanges of experts.
    pub exchanges: Vec<ExchangeRow>,
    /// Version of their library.
    pub exchange_version: String,
    /// File names with what wrote them and their SHA-256.
    pub files: Vec<(String, &'static str, String)>,
}

type Key = (Operation, Library, CallMode, String);
type Rows = BTreeMap<Key, BTreeMap<u32, BTreeMap<u64, Vec<f64>>>>;

const AICONFIGURATOR: &str = "columns of NVIDIA aiconfigurator";
const VIDUR: &str = "columns of microsoft/vidur";

/// Devices of a machine in DeepEP's tests, which the tables of one machine come from (`--num-processes`).
const EXCHANGE_DEVICES: u32 = 8;

/// Reads the tables of a folder by their names, and a table of pairs; of that the rows of two devices in one machine, or `across` two.
///
/// # Errors
/// A file that is no such table: the line, the column, what was found and what was expected. A folder without one.
pub fn read(folder: Option<&Path>, pairs: Option<&Path>, across: bool) -> Result<FabricTables> {
    let mut tables = FabricTables::default();
    let mut rows = Rows::new();
    let mut names: Vec<PathBuf> = Vec::new();
    if let Some(folder) = folder {
        for entry in std::fs::read_dir(folder).map_err(Error::io(folder, "read"))? {
            names.push(entry.map_err(Error::io(folder, "read"))?.path());
        }
    }
    names.sort();
    names.extend(pairs.map(Path::to_owned));
    for path in &names {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let begins = |stem: &str| name.starts_with(stem) && name.ends_with(".csv");
        let mut digest = Sha256::new();
        let writer = if Some(path.as_path()) == pairs {
            pair_rows(path, across, &mut digest, &mut rows)?;
            VIDUR
        } else if begins("nccl") {
            nccl(path, &mut digest, &mut rows)?;
            AICONFIGURATOR
        } else if begins("allreduce_custom") {
            custom(path, &mut digest, &mut rows)?;
            AICONFIGURATOR
        } else if begins("allreduce_vllm") {
            vllm(path, &mut digest, &mut rows)?;
            AICONFIGURATOR
        } else if begins("wideep_deepep_ll") || begins("wideep_deepep_normal") {
            exchange(path, begins("wideep_deepep_ll"), &mut digest, &mut tables)?;
            AICONFIGURATOR
        } else {
            continue;
        };
        tables.files.push((name, writer, hexadecimal(digest)));
    }
    if rows.is_empty() && tables.exchanges.is_empty() {
        let expected =
            "tables nccl*, allreduce_custom*, allreduce_vllm* or wideep_deepep_* (.csv), or rows of pairs";
        let place = folder.or(pairs).unwrap_or(Path::new("."));
        return Err(InputError::expected(expected).file(place).into());
    }
    for ((operation, library, mode, version), by_devices) in rows {
        let middle = |(bytes, mut times): (u64, Vec<f64>)| {
            times.sort_by(f64::total_cmp);
            (bytes, times[times.len() / 2])
        };
        let by_devices: BTreeMap<u32, Vec<(u64, f64)>> = by_devices
            .into_iter()
            .map(|(devices, sizes)| (devices, sizes.into_iter().map(middle).collect()))
            .collect();
        let same = |other: &CollectiveSeries| {
            (other.operation, other.library, other.mode) == (operation, library, mode)
                && other.by_devices == by_devices
        };
        match tables.series.iter().any(same) {
            true => tables.copies += 1,
            false => tables.series.push(CollectiveSeries { operation, library, version, mode, by_devices }),
        }
    }
    Ok(tables)
}

fn put(rows: &mut Rows, key: Key, devices: u32, bytes: u64, us: f64) {
    rows.entry(key).or_default().entry(devices).or_default().entry(bytes).or_default().push(us);
}

/// nccl-tests, launched one behind the other from C++ so that the host keeps ahead: device times. Sizes count values.
fn nccl(path: &Path, digest: &mut Sha256, rows: &mut Rows) -> Result<()> {
    let columns = ["op_name", "version", "nccl_dtype", "num_gpus", "message_size", "latency"];
    let table = Csv::read(path, &columns, digest)?;
    for (line, cells) in table.lines() {
        let operation = match cells[0].as_str() {
            "all_reduce" => Operation::AllReduce,
            "all_gather" => Operation::AllGather,
            "reduce_scatter" => Operation::ReduceScatter,
            "alltoall" => Operation::AllToAll,
            _ => {
                let expected = "all_reduce, all_gather, reduce_scatter or alltoall";
                return Err(table.wrong(line, cells, 0, expected).into());
            }
        };
        let (width, ending) = match cells[2].as_str() {
            "half" => (2, ""),
            "int8" => (1, " int8"),
            _ => return Err(table.wrong(line, cells, 2, "half or int8").into()),
        };
        let key = (operation, Library::Nccl, CallMode::Graph, format!("{}{ending}", cells[1]));
        let us = 1e3 * table.time(line, cells, 5, "milliseconds")?;
        put(rows, key, devices(&table, line, cells, 3)?, width * table.size(line, cells, 4)?, us);
    }
    Ok(())
}

/// All-reduces of values of 16 bits by the engines' own groups.
fn custom(path: &Path, digest: &mut Sha256, rows: &mut Rows) -> Result<()> {
    let columns = ["kernel_source", "library", "library_version", "num_gpus", "message_size", "latency_ms"];
    let table = Csv::read(path, &columns, digest)?;
    for (line, cells) in table.lines() {
        let (library, mode) = match cells[0].as_str() {
            "vLLM_custom_graph" => (Library::Vllm, CallMode::Graph),
            "vLLM_custom_eager" => (Library::Vllm, CallMode::Eager),
            "SGLang_CustomAllReduce_graph" => (Library::Sglang, CallMode::Graph),
            "SGLang_CustomAllReduce_eager" => (Library::Sglang, CallMode::Eager),
            "TRTLLM" => (Library::Trtllm, CallMode::Graph),
            _ => {
                let expected = "vLLM_custom_*, SGLang_CustomAllReduce_* (graph or eager) or TRTLLM";
                return Err(table.wrong(line, cells, 0, expected).into());
            }
        };
        // TensorRT-LLM's kernel is also measured from within SGLang.
        let version = match cells[1].as_str() {
            within if within == library.name() => cells[2].clone(),
            within => format!("in {within} {}", cells[2]),
        };
        let us = 1e3 * table.time(line, cells, 5, "milliseconds")?;
        let key = (Operation::AllReduce, library, mode, version);
        put(rows, key, devices(&table, line, cells, 3)?, 2 * table.size(line, cells, 4)?, us);
    }
    Ok(())
}

/// The same of vLLM alone, without its version.
fn vllm(path: &Path, digest: &mut Sha256, rows: &mut Rows) -> Result<()> {
    let table = Csv::read(path, &["backend", "num_gpus", "message_size", "latency_ms"], digest)?;
    for (line, cells) in table.lines() {
        let mode = match cells[0].as_str() {
            "vllm_graph" => CallMode::Graph,
            "vllm_eager" => CallMode::Eager,
            _ => return Err(table.wrong(line, cells, 0, "vllm_graph or vllm_eager").into()),
        };
        let us = 1e3 * table.time(line, cells, 3, "milliseconds")?;
        let key = (Operation::AllReduce, Library::Vllm, mode, "unstated".to_owned());
        put(rows, key, devices(&table, line, cells, 1)?, 2 * table.size(line, cells, 2)?, us);
    }
    Ok(())
}

/// Sends of NCCL between two devices, times of the kernels, sizes in bytes.
fn pair_rows(path: &Path, across: bool, digest: &mut Sha256, rows: &mut Rows) -> Result<()> {
    let columns = ["time_stats.send_recv.median", "size", "collective", "num_workers", "devices_per_node"];
    let table = Csv::read(path, &columns, digest)?;
    for (line, cells) in table.lines() {
        let (workers, each) = (table.whole(line, cells, 3)?, table.whole(line, cells, 4)?);
        if cells[2] != "send_recv" || workers != 2 || (each == 1) != across {
            continue;
        }
        let us = 1e3 * table.time(line, cells, 0, "milliseconds")?;
        let key = (Operation::SendReceive, Library::Nccl, CallMode::Graph, "unstated".to_owned());
        put(rows, key, 2, table.size(line, cells, 1)?, us);
    }
    Ok(())
}

/// Dispatch and combine of DeepEP within one machine.
fn exchange(path: &Path, low_latency: bool, digest: &mut Sha256, tables: &mut FabricTables) -> Result<()> {
    let mode = if low_latency { ExchangeMode::LowLatency } else { ExchangeMode::Normal };
    let times = match mode {
        ExchangeMode::LowLatency => ["dispatch_avg_t_us", "combine_avg_t_us"],
        ExchangeMode::Normal => ["dispatch_transmit_us", "combine_transmit_us"],
    };
    let mut columns = vec!["node_num", "hidden_size", "num_token", "num_topk", "num_experts", "version"];
    columns.extend(times);
    if mode == ExchangeMode::Normal {
        columns.extend(["dispatch_sms", "combine_sms"]);
    }
    let table = Csv::read(path, &columns, digest)?;
    for (line, cells) in table.lines() {
        let whole = |column| table.whole(line, cells, column);
        if whole(0)? != 1 {
            continue;
        }
        for (place, part) in [ExchangePart::Dispatch, ExchangePart::Combine].into_iter().enumerate() {
            let units = if mode == ExchangeMode::Normal { whole(8 + place)? } else { 0 };
            let call = ExchangeCall {
                devices: EXCHANGE_DEVICES,
                hidden: whole(1)?,
                tokens: whole(2)?,
                chosen: whole(3)?,
                experts: whole(4)?,
                units,
            };
            let us = table.time(line, cells, 6 + place, "microseconds")?;
            tables.exchanges.push(ExchangeRow { mode, part, call, us });
        }
        tables.exchange_version.clone_from(&cells[5]);
    }
    Ok(())
}

fn devices(table: &Csv, line: u64, cells: &[String], column: usize) -> Result<u32> {
    let number = table.whole(line, cells, column)?;
    match number {
        2.. => Ok(number),
        _ => Err(table.wrong(line, cells, column, "2 devices or more").into()),
    }
}
