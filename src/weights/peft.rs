//! Additions of low rank as the peft library keeps them: `adapter_config.json` and `adapter_model.safetensors`
//! (peft, `LoraConfig` and `save_pretrained`).

use super::LayerTensor;
use super::router_file::{RouterFile, Values};
use super::written::{layer_part, transposed};
use crate::error::{Error, InputError, Result};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What stands before the names of a model's tensors.
const PREFIX: &str = "base_model.model.";

/// A folder of additions that was read.
pub(crate) struct PeftFolder {
    bytes: Vec<u8>,
    path: PathBuf,
    /// By what the product of both factors is multiplied.
    scale: f32,
}

/// Its factors, to be read one by one.
pub(crate) struct PeftFactors<'a> {
    file: RouterFile<'a>,
    scale: f32,
}

/// Factors of a product: layer, name, inputs x rank, rank x outputs.
pub(crate) type Pair = (u32, LayerTensor, Vec<f32>, Vec<f32>);

fn name(layer: u32, part: LayerTensor, factor: char) -> String {
    let (called, _) = layer_part(part);
    format!("{PREFIX}model.layers.{layer}.{called}.lora_{factor}.weight")
}

impl PeftFolder {
    /// Writes both files into a folder. `shapes`: layer, name, inputs and outputs of each product.
    ///
    /// # Errors
    /// Whatever the system refuses.
    pub fn write(
        folder: &Path,
        model: &str,
        rank: u32,
        shapes: &[(u32, LayerTensor, [usize; 2])],
        pairs: &[Pair],
    ) -> Result<()> {
        let targets: BTreeSet<&str> = shapes
            .iter()
            .map(|(_, part, _)| layer_part(*part).0.rsplit('.').next().expect("a name has an end"))
            .collect();
        let config = json!({
            "peft_type": "LORA",
            "base_model_name_or_path": model,
            "task_type": "CAUSAL_LM",
            "r": rank,
            "lora_alpha": rank,
            "target_modules": targets,
            "bias": "none"
        });
        let path = folder.join("adapter_config.json");
        let text = serde_json::to_string_pretty(&config).expect("a config is JSON");
        std::fs::write(&path, text + "\n").map_err(Error::io(&path, "write"))?;
        let rank = rank as usize;
        let mut all: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
        for ((layer, part, down, up), (.., [inputs, outputs])) in pairs.iter().zip(shapes) {
            // Files keep outputs x inputs.
            let mut push = |factor, values: Vec<f32>, shape: [usize; 2]| {
                let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                all.push((name(*layer, *part, factor), shape.to_vec(), bytes));
            };
            push('A', transposed(down, *inputs, rank), [rank, *inputs]);
            push('B', transposed(up, rank, *outputs), [*outputs, rank]);
        }
        let view = |shape: &Vec<usize>, bytes| {
            TensorView::new(Dtype::F32, shape.clone(), bytes).expect("as many values as the shape says")
        };
        let views = all.iter().map(|(name, shape, bytes)| (name.as_str(), view(shape, bytes)));
        let bytes = safetensors::serialize(views, None).expect("tensors with names of their own");
        let path = folder.join("adapter_model.safetensors");
        std::fs::write(&path, bytes).map_err(Error::io(&path, "write"))
    }

    /// Opens a folder.
    ///
    /// # Errors
    /// Files that cannot be read, and additions of another kind.
    pub fn open(folder: &Path) -> Result<PeftFolder> {
        let config = folder.join("adapter_config.json");
        let text = std::fs::read(&config).map_err(Error::io(&config, "read"))?;
        let wrong = |key: &str, what: &str| Error::from(InputError::expected(what).key(key).file(&config));
        let keys: serde_json::Value =
            serde_json::from_slice(&text).map_err(|error| wrong("", &format!("JSON ({error})")))?;
        if keys["peft_type"] != "LORA" {
            return Err(wrong("peft_type", "LORA"));
        }
        for (key, neutral) in [
            ("bias", json!("none")),
            ("use_rslora", json!(false)),
            ("use_dora", json!(false)),
            ("fan_in_fan_out", json!(false)),
        ] {
            if keys.get(key).is_some_and(|value| *value != neutral) {
                return Err(wrong(key, &format!("{neutral}, as nothing else is computed")));
            }
        }
        let number = |key: &str| keys[key].as_f64().filter(|value| *value > 0.0 && *value <= 65536.0);
        let rank = number("r").ok_or_else(|| wrong("r", "a rank from 1 to 65536"))?;
        let alpha = number("lora_alpha").ok_or_else(|| wrong("lora_alpha", "a number from 1 to 65536"))?;
        let path = folder.join("adapter_model.safetensors");
        let bytes = std::fs::read(&path).map_err(Error::io(&path, "read"))?;
        Ok(PeftFolder { bytes, path, scale: (alpha / rank) as f32 })
    }

    /// Its factors.
    ///
    /// # Errors
    /// What is no safetensors file.
    pub fn factors(&self) -> Result<PeftFactors<'_>> {
        Ok(PeftFactors { file: RouterFile::open(&self.bytes, &self.path)?, scale: self.scale })
    }
}

impl PeftFactors<'_> {
    /// Tensors in the file.
    pub fn count(&self) -> usize {
        self.file.count()
    }

    /// Rank and both factors of a product: inputs x rank, rank x outputs.
    ///
    /// # Errors
    /// Factors that are missing, have other shapes or are not finite.
    pub fn pair(
        &self,
        layer: u32,
        part: LayerTensor,
        [inputs, outputs]: [usize; 2],
    ) -> Result<(usize, Vec<f32>, Vec<f32>)> {
        let read = |factor: char| -> Result<Values<2>> {
            let name = name(layer, part, factor);
            let ([rows, columns], values) = self.file.tensor::<2>(&name)?;
            let fits = match factor {
                'A' => columns == inputs,
                _ => rows == outputs,
            };
            if !fits || rows == 0 || columns == 0 {
                let what = format!("a factor of a product of {inputs} inputs and {outputs} outputs");
                return Err(self.file.wrong(&name, what));
            }
            Ok(([rows, columns], values))
        };
        let (([rank, _], down), ([_, other], up)) = (read('A')?, read('B')?);
        if rank != other {
            let what = format!("a rank of {rank} as the other factor has, not {other}");
            return Err(self.file.wrong(&name(layer, part, 'B'), what));
        }
        let up = up.iter().map(|value| value * self.scale).collect::<Vec<f32>>();
        Ok((rank, transposed(&down, rank, inputs), transposed(&up, outputs, rank)))
    }
}
