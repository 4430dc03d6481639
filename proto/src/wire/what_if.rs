//! [`WhatIf`] and what comes of it, on the wire.

use super::error::{ConversionError, from_reference, optional_text, required};
use crate::{Bytes, Hypothetical, Readiness, RemedyCount, WhatIf, wire};

impl From<WhatIf> for wire::WhatIf {
    fn from(value: WhatIf) -> Self {
        let WhatIf { add_memory, gpu, fix_drivers } = value;
        Self { add_memory: add_memory.map(Bytes::get), gpu, fix_drivers }
    }
}

impl TryFrom<wire::WhatIf> for WhatIf {
    type Error = ConversionError;
    fn try_from(message: wire::WhatIf) -> Result<Self, ConversionError> {
        let wire::WhatIf { add_memory, gpu, fix_drivers } = message;
        Ok(Self { add_memory: add_memory.map(Bytes::new), gpu: optional_text("gpu", gpu)?, fix_drivers })
    }
}

impl From<Hypothetical> for wire::Hypothetical {
    fn from(value: Hypothetical) -> Self {
        let Hypothetical { verdict, model, quantization } = value;
        Self { verdict: verdict.number(), model, quantization }
    }
}

impl TryFrom<wire::Hypothetical> for Hypothetical {
    type Error = ConversionError;
    fn try_from(message: wire::Hypothetical) -> Result<Self, ConversionError> {
        let wire::Hypothetical { verdict, model, quantization } = message;
        Ok(Self {
            verdict: Readiness::from_number(verdict),
            model: optional_text("model", model)?,
            quantization: optional_text("quantization", quantization)?,
        })
    }
}

impl From<RemedyCount> for wire::RemedyCount {
    fn from(value: RemedyCount) -> Self {
        let RemedyCount { change, machines } = value;
        Self { change: Some(change.into()), machines }
    }
}

impl TryFrom<wire::RemedyCount> for RemedyCount {
    type Error = ConversionError;
    fn try_from(message: wire::RemedyCount) -> Result<Self, ConversionError> {
        let wire::RemedyCount { change, machines } = message;
        Ok(Self { change: required("change", change)?, machines })
    }
}

from_reference!(WhatIf, Hypothetical, RemedyCount);
