//! The speed of a laid out model, from what is known of its devices.

use muster_proto::EstimatedSpeed;

use super::layout::Layout;
use super::{Question, SpeedBasis};
use crate::gguf::GgufHeader;

/// How fast the model runs as it is laid out; `None` where nothing is known of the devices.
pub(super) fn speed(question: &Question, _header: &GgufHeader, _layout: &Layout) -> Option<EstimatedSpeed> {
    match &question.speed {
        SpeedBasis::None | SpeedBasis::Benchmark(_) => None,
    }
}
