//! [`Raw`]: writes GGUF files of any wrongness, field by field.

/// GGUF's numbers of types.
pub const U8: u32 = 0;
pub const I8: u32 = 1;
pub const U16: u32 = 2;
pub const U32: u32 = 4;
pub const I32: u32 = 5;
pub const F32: u32 = 6;
pub const BOOL: u32 = 7;
pub const STRING: u32 = 8;
pub const ARRAY: u32 = 9;
pub const U64: u32 = 10;

/// ggml's numbers of tensor types.
pub const T_F32: u32 = 0;
pub const T_Q4_0: u32 = 2;
pub const T_I8: u32 = 24;

/// A tensor description; the offset is where llama.cpp wants it unless said otherwise.
#[derive(Clone, Debug)]
pub struct RawTensor {
    pub name: String,
    pub dimensions: Vec<u64>,
    pub kind: u32,
    pub offset: Option<u64>,
}

/// A file.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    pub version: u32,
    pub tensor_count: Option<u64>,
    pub entry_count: Option<u64>,
    pub entries: Vec<(String, Vec<u8>)>,
    pub tensors: Vec<RawTensor>,
    /// Bytes of data; what the tensors need unless said otherwise.
    pub data: Option<u64>,
}

pub fn string(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text].concat()
}

fn array(element: u32, length: u64, content: &[u8]) -> Vec<u8> {
    [&ARRAY.to_le_bytes()[..], &element.to_le_bytes(), &length.to_le_bytes(), content].concat()
}

impl Raw {
    pub fn new() -> Self {
        Self { version: 3, ..Self::default() }
    }

    /// With an architecture.
    pub fn of(architecture: &str) -> Self {
        Self::new().text("general.architecture", architecture)
    }

    /// Sets a value, type and all; one that is there already is replaced.
    pub fn put(mut self, key: &str, kind_and_value: Vec<u8>) -> Self {
        match self.entries.iter_mut().find(|(known, _)| known == key) {
            Some((_, old)) => *old = kind_and_value,
            None => self.entries.push((key.to_owned(), kind_and_value)),
        }
        self
    }

    pub fn without(mut self, key: &str) -> Self {
        self.entries.retain(|(known, _)| known != key);
        self
    }

    /// Adds a value even if there is one already.
    pub fn again(mut self, key: &str, kind_and_value: Vec<u8>) -> Self {
        self.entries.push((key.to_owned(), kind_and_value));
        self
    }

    pub fn value(self, key: &str, kind: u32, bytes: &[u8]) -> Self {
        self.put(key, [&kind.to_le_bytes(), bytes].concat())
    }

    pub fn u32(self, key: &str, value: u32) -> Self {
        self.value(key, U32, &value.to_le_bytes())
    }

    pub fn u16(self, key: &str, value: u16) -> Self {
        self.value(key, U16, &value.to_le_bytes())
    }

    pub fn i32(self, key: &str, value: i32) -> Self {
        self.value(key, I32, &value.to_le_bytes())
    }

    pub fn f32(self, key: &str, value: f32) -> Self {
        self.value(key, F32, &value.to_le_bytes())
    }

    pub fn bool(self, key: &str, value: bool) -> Self {
        self.value(key, BOOL, &[value.into()])
    }

    pub fn text(self, key: &str, value: &str) -> Self {
        self.value(key, STRING, &string(value.as_bytes()))
    }

    pub fn texts<T: AsRef<[u8]>>(self, key: &str, values: &[T]) -> Self {
        let content: Vec<u8> = values.iter().flat_map(|value| string(value.as_ref())).collect();
        self.put(key, array(STRING, values.len() as u64, &content))
    }

    pub fn i32s(self, key: &str, values: &[i32]) -> Self {
        let content: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.put(key, array(I32, values.len() as u64, &content))
    }

    pub fn f32s(self, key: &str, values: &[f32]) -> Self {
        let content: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.put(key, array(F32, values.len() as u64, &content))
    }

    /// An array that says what it likes of itself.
    pub fn array(self, key: &str, element: u32, length: u64, content: &[u8]) -> Self {
        self.put(key, array(element, length, content))
    }

    pub fn tensor(mut self, name: &str, dimensions: &[u64], kind: u32) -> Self {
        self.tensors.push(RawTensor { name: name.into(), dimensions: dimensions.to_vec(), kind, offset: None });
        self
    }

    pub fn tensor_at(mut self, name: &str, dimensions: &[u64], kind: u32, offset: u64) -> Self {
        let offset = Some(offset);
        self.tensors.push(RawTensor { name: name.into(), dimensions: dimensions.to_vec(), kind, offset });
        self
    }

    /// The file without its data.
    pub fn header(&self) -> Vec<u8> {
        self.parts().0
    }

    /// The whole file, its data zeros.
    pub fn bytes(&self) -> Vec<u8> {
        let (mut bytes, data) = self.parts();
        bytes.resize(bytes.len() + usize::try_from(self.data.unwrap_or(data)).unwrap(), 0);
        bytes
    }

    /// Header, and how much data the tensors need where that can be said.
    fn parts(&self) -> (Vec<u8>, u64) {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(self.tensor_count.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        bytes.extend(self.entry_count.unwrap_or(self.entries.len() as u64).to_le_bytes());
        for (key, value) in &self.entries {
            bytes.extend(string(key.as_bytes()));
            bytes.extend(value);
        }
        let mut end = 0_u64;
        for tensor in &self.tensors {
            bytes.extend(string(tensor.name.as_bytes()));
            bytes.extend(u32::try_from(tensor.dimensions.len()).unwrap().to_le_bytes());
            for size in &tensor.dimensions {
                bytes.extend(size.to_le_bytes());
            }
            bytes.extend(tensor.kind.to_le_bytes());
            bytes.extend(tensor.offset.unwrap_or(end).to_le_bytes());
            let elements = tensor.dimensions.iter().try_fold(1_u64, |product, size| product.checked_mul(*size));
            let size = elements.map_or(0, |elements| match tensor.kind {
                T_F32 => elements.saturating_mul(4),
                T_Q4_0 => elements / 32 * 18,
                _ => elements,
            });
            end = end.saturating_add(size).checked_next_multiple_of(32).unwrap_or(0);
        }
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        (bytes, if end > 1 << 20 { 0 } else { end })
    }
}

/// Rows of the tiny models.
pub const WIDTH: u64 = 32;
const FORWARD: u64 = 64;

/// Tokens of the tiny models.
pub fn tokens() -> Vec<String> {
    let special = ["<unk>", "<s>", "</s>", "<0x0A>"].map(str::to_owned);
    special.into_iter().chain(('a'..='z').map(String::from)).chain(["ab".into(), "\u{2581}a".into()]).collect()
}

/// A model of one layer that llama.cpp takes, in a few kilobytes.
pub fn llama() -> Raw {
    let tokens = tokens();
    let count = tokens.len();
    let types: Vec<i32> = (0..count).map(|index| [2, 3, 3, 6].get(index).copied().unwrap_or(1)).collect();
    let scores: Vec<f32> = (0_u8..).take(count).map(|index| -f32::from(index)).collect();
    weights(shape("llama"), count as u64)
        .text("tokenizer.ggml.model", "llama")
        .texts("tokenizer.ggml.tokens", &tokens)
        .f32s("tokenizer.ggml.scores", &scores)
        .i32s("tokenizer.ggml.token_type", &types)
        .u32("tokenizer.ggml.bos_token_id", 1)
        .u32("tokenizer.ggml.eos_token_id", 2)
        .u32("tokenizer.ggml.unknown_token_id", 0)
        // As converters write "none", and llama.cpp warns of.
        .u32("tokenizer.ggml.padding_token_id", u32::MAX)
        .bool("tokenizer.ggml.add_bos_token", true)
        .text("tokenizer.chat_template", "{% for m in messages %}{{ m.content }}{% endfor %}")
}

/// The same with a BPE tokenizer.
pub fn bpe() -> Raw {
    let merges: Vec<&str> = vec!["a b"];
    llama()
        .text("tokenizer.ggml.model", "gpt2")
        .text("tokenizer.ggml.pre", "gpt-2")
        .texts("tokenizer.ggml.merges", &merges)
        .without("tokenizer.ggml.scores")
}

/// The same without a tokenizer, as models of sound have it.
pub fn no_vocabulary() -> Raw {
    let count = tokens().len();
    weights(shape("llama"), count as u64)
        .text("tokenizer.ggml.model", "no_vocab")
        .u32("llama.vocab_size", u32::try_from(count).unwrap())
}

/// A mixture of two experts.
pub fn experts() -> Raw {
    let mut raw = llama().u32("llama.expert_count", 2).u32("llama.expert_used_count", 1);
    raw.tensors.retain(|tensor| !tensor.name.contains(".ffn_") || tensor.name.contains("norm"));
    raw.tensor("blk.0.ffn_gate_inp.weight", &[WIDTH, 2], T_F32)
        .tensor("blk.0.ffn_gate_exps.weight", &[WIDTH, FORWARD, 2], T_Q4_0)
        .tensor("blk.0.ffn_up_exps.weight", &[WIDTH, FORWARD, 2], T_Q4_0)
        .tensor("blk.0.ffn_down_exps.weight", &[FORWARD, WIDTH, 2], T_Q4_0)
}

fn shape(architecture: &str) -> Raw {
    let key = |name: &str| format!("{architecture}.{name}");
    Raw::of(architecture)
        .u32(&key("context_length"), 128)
        .u32(&key("embedding_length"), 32)
        .u32(&key("block_count"), 1)
        .u32(&key("feed_forward_length"), 64)
        .u32(&key("attention.head_count"), 2)
        .u32(&key("attention.head_count_kv"), 1)
        .u32(&key("rope.dimension_count"), 16)
        .f32(&key("attention.layer_norm_rms_epsilon"), 1e-5)
}

fn weights(raw: Raw, tokens: u64) -> Raw {
    raw.tensor("token_embd.weight", &[WIDTH, tokens], T_Q4_0)
        .tensor("output_norm.weight", &[WIDTH], T_F32)
        .tensor("output.weight", &[WIDTH, tokens], T_Q4_0)
        .tensor("blk.0.attn_norm.weight", &[WIDTH], T_F32)
        .tensor("blk.0.attn_q.weight", &[WIDTH, WIDTH], T_Q4_0)
        .tensor("blk.0.attn_k.weight", &[WIDTH, WIDTH / 2], T_Q4_0)
        .tensor("blk.0.attn_v.weight", &[WIDTH, WIDTH / 2], T_Q4_0)
        .tensor("blk.0.attn_output.weight", &[WIDTH, WIDTH], T_Q4_0)
        .tensor("blk.0.ffn_norm.weight", &[WIDTH], T_F32)
        .tensor("blk.0.ffn_gate.weight", &[WIDTH, FORWARD], T_Q4_0)
        .tensor("blk.0.ffn_up.weight", &[WIDTH, FORWARD], T_Q4_0)
        .tensor("blk.0.ffn_down.weight", &[FORWARD, WIDTH], T_Q4_0)
}
