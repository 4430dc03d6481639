//! Which build a log is of, by the shape of its lines, and so with which graphs and settings it is replayed.
//!
//! When a build changed what is from memory of llama.cpp's public history; nothing here is chosen by an error of an estimate.

use muster_engine::worker::EarlierBuild;

use crate::row::Row;

/// How a log's build differs from the one that is linked, beyond what all earlier builds have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vintage {
    /// Its compute graphs.
    pub build: EarlierBuild,
    /// N of M layers were the last N blocks, and the output only where N is more than there are blocks: until the autumn
    /// of 2025. Today the output is the first of the N.
    pub output_last: bool,
    /// Pipelined over a second device, which holds nothing.
    pub hidden_device: bool,
}

impl Vintage {
    /// By what the log prints.
    pub fn of(row: &Row) -> Self {
        // `flash_attn = auto` and words in its place are of the end of August 2025; `ggml_set_rows` became the rule a few
        // weeks before.
        let before_autumn_2025 = matches!(row.text("flash_attn"), "0" | "1" | "");
        let devices = row.allocated().keys().filter(|name| *name != "Host").count();
        Self {
            build: EarlierBuild { f32_masks: true, copied_rows: before_autumn_2025 },
            output_last: before_autumn_2025,
            hidden_device: row.number("pipeline_parallel_n_copies").is_some() && devices == 1,
        }
    }
}
