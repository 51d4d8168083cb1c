//! GGUF files in the making, right ones and broken ones.

/// A GGUF file in the making.
#[derive(Clone)]
pub struct Gguf {
    pub keys: Vec<(String, Vec<u8>)>,
    /// Name, dimensions (innermost first), type, offset.
    pub tensors: Vec<(String, Vec<u64>, u32, u64)>,
    pub data: Vec<u8>,
}

pub fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

pub fn typed(kind: u32, bytes: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], bytes].concat()
}

pub fn list(kind: u32, items: &[Vec<u8>]) -> Vec<u8> {
    typed(9, &[&kind.to_le_bytes()[..], &(items.len() as u64).to_le_bytes()[..], &items.concat()].concat())
}

impl Gguf {
    /// A llama of one layer, all singles, with a vocabulary of three.
    pub fn small() -> Gguf {
        let whole = |n: u32| typed(4, &n.to_le_bytes());
        let words: Vec<Vec<u8>> = ["a", "b", "ab"].map(text).into();
        let keys = [
            ("general.architecture", typed(8, &text("llama"))),
            ("llama.block_count", whole(1)),
            ("llama.embedding_length", whole(8)),
            ("llama.feed_forward_length", whole(12)),
            ("llama.attention.head_count", whole(2)),
            ("llama.attention.head_count_kv", whole(1)),
            ("llama.rope.freq_base", typed(6, &1e4_f32.to_le_bytes())),
            ("tokenizer.ggml.model", typed(8, &text("gpt2"))),
            ("tokenizer.ggml.pre", typed(8, &text("smollm"))),
            ("tokenizer.ggml.tokens", list(8, &words)),
            ("tokenizer.ggml.merges", list(8, &[text("a b")])),
            ("tokenizer.ggml.eos_token_id", whole(2)),
        ];
        let keys = keys.map(|(key, value)| (key.to_owned(), value)).into();
        let mut gguf = Gguf { keys, tensors: Vec::new(), data: Vec::new() };
        let shapes: [(&str, &[u64]); 11] = [
            ("token_embd", &[8, 3]),
            ("output_norm", &[8]),
            ("blk.0.attn_norm", &[8]),
            ("blk.0.attn_q", &[8, 8]),
            ("blk.0.attn_k", &[8, 4]),
            ("blk.0.attn_v", &[8, 4]),
            ("blk.0.attn_output", &[8, 8]),
            ("blk.0.ffn_norm", &[8]),
            ("blk.0.ffn_gate", &[8, 12]),
            ("blk.0.ffn_up", &[8, 12]),
            ("blk.0.ffn_down", &[12, 8]),
        ];
        for (name, dims) in shapes {
            let offset = gguf.data.len() as u64;
            gguf.tensors.push((format!("{name}.weight"), dims.to_vec(), 0, offset));
            let end = offset + dims.iter().product::<u64>() * 4;
            gguf.data.resize(end.next_multiple_of(32) as usize, 1);
        }
        gguf
    }

    pub fn header(&self) -> Vec<u8> {
        let counts = [self.tensors.len() as u64, self.keys.len() as u64].map(u64::to_le_bytes).concat();
        let mut bytes = [&b"GGUF"[..], &3u32.to_le_bytes(), &counts].concat();
        for (key, value) in &self.keys {
            bytes.extend(text(key));
            bytes.extend(value);
        }
        for (name, dims, kind, offset) in &self.tensors {
            bytes.extend(text(name));
            bytes.extend((dims.len() as u32).to_le_bytes());
            bytes.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
            bytes.extend(kind.to_le_bytes());
            bytes.extend(offset.to_le_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes
    }

    pub fn bytes(&self) -> Vec<u8> {
        [self.header(), self.data.clone()].concat()
    }

    pub fn set(mut self, key: &str, value: Vec<u8>) -> Gguf {
        self.keys.retain(|(known, _)| known != key);
        self.keys.push((key.into(), value));
        self
    }

    pub fn without(mut self, key: &str) -> Gguf {
        self.keys.retain(|(known, _)| known != key);
        self
    }

    pub fn tensor(mut self, name: &str, change: impl Fn(&mut (String, Vec<u64>, u32, u64))) -> Gguf {
        change(self.tensors.iter_mut().find(|tensor| tensor.0.starts_with(name)).expect("a known tensor"));
        self
    }
}
