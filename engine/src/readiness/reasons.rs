//! Why a model does not do on a desk, in typed reasons.

use muster_proto::{Bytes, Phase, ReadinessReason, ReasonCause, SpeedRange, TokensPerSecond};

use super::judge::{Case, Outcome, Standing, vram_short};
use super::remedy;
use super::sizes::sizes;

impl Case<'_> {
    pub fn reasons(&self, outcome: &Outcome) -> Vec<ReadinessReason> {
        let reason = |cause, remedy| ReadinessReason { cause, remedy };
        let mut reasons = Vec::new();
        match outcome.standing {
            Standing::Ready => {}
            Standing::Uncertain(phase) => {
                if let Some((speed, wanted)) = self.phase(outcome, phase) {
                    let cause = ReasonCause::Uncertain { phase, low: speed.low, high: speed.high, wanted };
                    reasons.push(reason(cause, Some(remedy::BENCHMARK.to_owned())));
                }
            }
            Standing::NoSpeed => {
                reasons.push(reason(ReasonCause::NotBenchmarked, Some(remedy::BENCHMARK.to_owned())));
            }
            Standing::Disk(by) => {
                let by = Bytes::new(by);
                reasons.push(reason(ReasonCause::DiskShort { by }, Some(remedy::disk(by))));
            }
            Standing::Context(has) => reasons.extend(self.context_short(outcome, has)),
            Standing::Slow(phase, _) => {
                if let Some((speed, wanted)) = self.phase(outcome, phase) {
                    reasons.push(reason(ReasonCause::TooSlow { phase, predicted: speed.expected, wanted }, None));
                }
                reasons.extend(self.more_gpu(outcome));
            }
            Standing::Short(short) => {
                reasons.push(reason(
                    ReasonCause::RamShort { by: Bytes::new(short.ram) },
                    Some(remedy::main_memory(Bytes::new(short.ram))),
                ));
                reasons.extend(self.more_gpu(outcome));
            }
        }
        reasons
    }

    fn phase(&self, outcome: &Outcome, phase: Phase) -> Option<(SpeedRange, TokensPerSecond)> {
        let speeds = outcome.speeds?;
        Some(match phase {
            Phase::Decode => (speeds.decode, self.role.decode_floor?),
            _ => (speeds.prefill, self.role.prefill_floor?),
        })
    }

    /// That a GPU is missing, or memory on it, with what helps; nothing where all layers are on one.
    fn more_gpu(&self, outcome: &Outcome) -> Option<ReadinessReason> {
        let sizes = sizes(self.desk.backend(), outcome.model, self.least())?;
        let size = self.wanted(sizes, true)?;
        let card = remedy::card(Bytes::new(size.device + size.device_compute));
        if self.desk.gpus.is_empty() {
            return Some(ReadinessReason { cause: ReasonCause::NoDevice, remedy: Some(card) });
        }
        let by = vram_short(self.desk, size).filter(|by| *by > 0)?;
        let smaller = remedy::smaller(self.desk, outcome.model, self.least(), self.role.context);
        let remedy = smaller.map_or_else(|| card.clone(), |smaller| format!("{smaller}; else {card}"));
        Some(ReadinessReason { cause: ReasonCause::VramShort { by: Bytes::new(by) }, remedy: Some(remedy) })
    }
}
