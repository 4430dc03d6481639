//! Models that would do with less context than a role wants: trained with less, or without room for more.

use std::cmp::Ordering;

use muster_proto::{ContextTokens, ReadinessReason, ReasonCause};

use super::judge::{Case, Outcome, Standing, context_index, nearer};
use super::roles::counts;
use super::sizes::{CONTEXTS, QUANTIZATIONS, sizes};
use crate::reference;

/// Less than this is no conversation.
const LEAST: u32 = 2048;

impl Case<'_> {
    /// Of the models of the role's class, the one that does with the longest context that is shorter than wanted; nothing
    /// where none does.
    pub fn shortened(&self) -> Option<Outcome> {
        let counting = reference::all().iter().enumerate().filter(|(_, model)| counts(model, self.role));
        let mut found: Vec<Outcome> = counting.filter_map(|(index, _)| self.shortened_model(index, false)).collect();
        found.sort_by(nearer);
        found.into_iter().find_map(|outcome| self.shortened_model(outcome.model, true))
    }

    fn shortened_model(&self, model: usize, exact: bool) -> Option<Outcome> {
        let wanted = context_index(self.role.context).unwrap_or(CONTEXTS.len());
        let shorter = CONTEXTS.iter().enumerate().take(wanted).rev().filter(|(_, context)| **context >= LEAST);
        shorter.map(|(index, context)| self.at(model, index, *context, exact)).find(Option::is_some).flatten()
    }

    /// In the best quantization that does with one context, wholly on GPUs before partly.
    fn at(&self, model: usize, index: usize, context: u32, exact: bool) -> Option<Outcome> {
        let quantized = |quantization: usize| {
            let sizes = sizes(self.desk.backend(), model, quantization)?;
            let outcome = self.sized((model, quantization), sizes, sizes.by_context.get(index)?, exact);
            let ready = outcome.standing == Standing::Ready;
            ready.then_some(Outcome { standing: Standing::Context(context), ..outcome })
        };
        (0..=self.least()).filter_map(quantized).min_by(|one, other| match other.whole().cmp(&one.whole()) {
            Ordering::Equal => one.quantization.cmp(&other.quantization),
            placed => placed,
        })
    }

    /// How much context there is, and that the model would do with it.
    pub(super) fn context_short(&self, outcome: &Outcome, has: u32) -> Option<ReadinessReason> {
        let model = reference::all().get(outcome.model)?;
        let all = sizes(self.desk.backend(), outcome.model, outcome.quantization)?.by_context.len();
        let trained = CONTEXTS.get(all.checked_sub(1)?) == Some(&has);
        let quantization = QUANTIZATIONS[outcome.quantization];
        let why = if trained { ", the most it was trained with" } else { "" };
        let remedy = format!("{} {quantization} does with {has} tokens of context{why}", model.name);
        let cause = ReasonCause::ContextShort { has: ContextTokens::new(has), wanted: self.role.context };
        Some(ReadinessReason { cause, remedy: Some(remedy) })
    }
}
