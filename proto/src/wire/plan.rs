//! [`Plan`] on the wire, where each machine also carries its name for people.

use std::collections::BTreeMap;

use bytes::Bytes as RawBytes;

use super::error::{
    ConversionError, FLEET_MAX, clip, figure, from_reference, identity, list, optional, optional_text,
    optional_tokens_rate, text, tokens_rate,
};
use crate::wire::rejection::Reason;
use crate::{
    Bytes, Candidate, Closeness, MachineId, MachinePlan, Plan, Rejection, RejectionReason, TokensPerSecond, wire,
};

impl wire::Plan {
    /// The plan with the machines' names beside it; a machine without one gets an empty name.
    pub fn with_names(plan: Plan, names: &BTreeMap<MachineId, String>) -> Self {
        let Plan { machines } = plan;
        Self {
            machines: machines
                .into_iter()
                .map(|(machine, planned)| {
                    let MachinePlan { assignment, candidates, blocked } = planned;
                    wire::MachinePlan {
                        machine: RawBytes::copy_from_slice(machine.as_bytes()),
                        hostname: names.get(&machine).cloned().unwrap_or_default(),
                        assignment: assignment.map(Into::into),
                        candidates: candidates.into_iter().map(Into::into).collect(),
                        blocked: blocked.map(clip),
                    }
                })
                .collect(),
        }
    }

    /// The plan and the machines' names.
    pub fn into_plan_and_names(self) -> Result<(Plan, BTreeMap<MachineId, String>), ConversionError> {
        let Self { machines } = self;
        if machines.len() > FLEET_MAX {
            let reason = format!("{} entries, at most {FLEET_MAX} are taken", machines.len());
            return Err(ConversionError::new("machines", reason));
        }
        let mut plan = Plan::default();
        let mut names = BTreeMap::new();
        for (index, message) in machines.into_iter().enumerate() {
            let (machine, hostname, planned) =
                machine_plan(message).map_err(|error| error.within(&format!("machines[{index}]")))?;
            if plan.machines.insert(machine, planned).is_some() {
                return Err(ConversionError::new(format!("machines[{index}].machine"), "occurs twice"));
            }
            names.insert(machine, hostname);
        }
        Ok((plan, names))
    }
}

fn machine_plan(message: wire::MachinePlan) -> Result<(MachineId, String, MachinePlan), ConversionError> {
    let wire::MachinePlan { machine, hostname, assignment, candidates, blocked } = message;
    let planned = MachinePlan {
        assignment: optional("assignment", assignment)?,
        candidates: list("candidates", candidates)?,
        blocked: optional_text("blocked", blocked)?,
    };
    Ok((identity("machine", &machine)?, text("hostname", hostname)?, planned))
}

impl From<Plan> for wire::Plan {
    fn from(value: Plan) -> Self {
        Self::with_names(value, &BTreeMap::new())
    }
}

impl TryFrom<wire::Plan> for Plan {
    type Error = ConversionError;
    fn try_from(message: wire::Plan) -> Result<Self, ConversionError> {
        message.into_plan_and_names().map(|(plan, _names)| plan)
    }
}

impl From<Candidate> for wire::Candidate {
    fn from(value: Candidate) -> Self {
        let Candidate { model, quantization, digest, bits_per_weight, needs, decode, rejected } = value;
        Self {
            model,
            quantization,
            digest: RawBytes::copy_from_slice(digest.as_bytes()),
            bits_per_weight,
            needs: needs.map(Bytes::get),
            decode: decode.map(TokensPerSecond::get),
            rejected: rejected.map(Into::into),
        }
    }
}

impl TryFrom<wire::Candidate> for Candidate {
    type Error = ConversionError;
    fn try_from(message: wire::Candidate) -> Result<Self, ConversionError> {
        let wire::Candidate { model, quantization, digest, bits_per_weight, needs, decode, rejected } = message;
        Ok(Self {
            model: text("model", model)?,
            quantization: text("quantization", quantization)?,
            digest: identity("digest", &digest)?,
            bits_per_weight: figure("bits_per_weight", bits_per_weight)?,
            needs: needs.map(Bytes::new),
            decode: optional_tokens_rate("decode", decode)?,
            rejected: optional("rejected", rejected)?,
        })
    }
}

impl From<Rejection> for wire::Rejection {
    fn from(value: Rejection) -> Self {
        let text = clip(value.to_string());
        let Rejection { reason } = value;
        let reason = match reason {
            RejectionReason::MemoryShort { device, needs, free, typical } => {
                Some(Reason::MemoryShort(wire::MemoryShort { device, needs: needs.get(), free: free.get(), typical }))
            }
            RejectionReason::DiskShort { needs, free } => {
                Some(Reason::DiskShort(wire::DiskShort { needs: needs.get(), free: free.get() }))
            }
            RejectionReason::TooSlow { predicted, wanted } => {
                Some(Reason::TooSlow(wire::TooSlow { predicted: predicted.get(), wanted: wanted.get() }))
            }
            RejectionReason::ContextShort { has, wanted } => {
                Some(Reason::ContextShort(wire::ContextShort { has, wanted }))
            }
            RejectionReason::NotSized { error } => Some(Reason::NotSized(wire::NotSized { error: clip(error) })),
            RejectionReason::Outranked { by, closeness } => Some(Reason::Outranked(wire::Outranked {
                by,
                by_divergence: closeness.map(|closeness| closeness.winner),
                divergence: closeness.map(|closeness| closeness.this),
            })),
            RejectionReason::Other { text: _ } => None,
        };
        Self { text, reason }
    }
}

impl TryFrom<wire::Rejection> for Rejection {
    type Error = ConversionError;
    fn try_from(message: wire::Rejection) -> Result<Self, ConversionError> {
        let wire::Rejection { text: words, reason } = message;
        let words = text("text", words)?;
        let reason = match reason {
            None => RejectionReason::Other { text: words },
            Some(Reason::MemoryShort(wire::MemoryShort { device, needs, free, typical })) => {
                RejectionReason::MemoryShort {
                    device: text("memory_short.device", device)?,
                    needs: Bytes::new(needs),
                    free: Bytes::new(free),
                    typical,
                }
            }
            Some(Reason::DiskShort(wire::DiskShort { needs, free })) => {
                RejectionReason::DiskShort { needs: Bytes::new(needs), free: Bytes::new(free) }
            }
            Some(Reason::TooSlow(wire::TooSlow { predicted, wanted })) => RejectionReason::TooSlow {
                predicted: tokens_rate("too_slow.predicted", predicted)?,
                wanted: tokens_rate("too_slow.wanted", wanted)?,
            },
            Some(Reason::ContextShort(wire::ContextShort { has, wanted })) => {
                RejectionReason::ContextShort { has, wanted }
            }
            Some(Reason::NotSized(wire::NotSized { error })) => {
                RejectionReason::NotSized { error: text("not_sized.error", error)? }
            }
            Some(Reason::Outranked(wire::Outranked { by, by_divergence, divergence })) => RejectionReason::Outranked {
                by: text("outranked.by", by)?,
                closeness: match (by_divergence, divergence) {
                    (Some(winner), Some(this)) => Some(Closeness {
                        winner: figure("outranked.by_divergence", winner)?,
                        this: figure("outranked.divergence", this)?,
                    }),
                    _ => None,
                },
            },
        };
        Ok(Self { reason })
    }
}

from_reference!(Plan, Candidate, Rejection);
