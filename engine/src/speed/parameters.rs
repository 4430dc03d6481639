//! [`Parameters`]: who knows what a term takes: [`Priors`] by their names' text, or those that ship by their [`Key`]s.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::names::{Keeps, Key, Name};
use super::physics::{self, Concern, Term};
use super::priors::Priors;

/// Logarithm by which times of attention over the context scatter beyond those of weights: a factor of two.
const CONTEXT: f64 = 0.8;
/// The same of experts.
const EXPERTS: f64 = 0.2;

/// Values of parameters, and the spreads around what they predict.
pub(super) trait Parameters {
    /// What parameters are called by.
    type Name: Name;

    /// A parameter's value; 0 for one that was never learnt.
    fn value(&self, name: &Self::Name) -> f64;

    /// Where the spreads are.
    fn priors(&self) -> &Priors;

    /// Seconds that a term takes.
    fn seconds(&self, term: &Term<Self::Name>) -> f64 {
        let exponent: f64 = term.factors.iter().map(|(name, weight)| self.value(name) * weight).sum();
        term.quantity * exponent.exp()
    }

    /// Seconds of each term.
    fn each(&self, terms: &[Term<Self::Name>]) -> Vec<f64> {
        terms.iter().map(|term| self.seconds(term)).collect()
    }
}

impl Parameters for Priors {
    type Name = String;

    fn value(&self, name: &String) -> f64 {
        self.parameters.get(name).copied().unwrap_or(0.0)
    }

    fn priors(&self) -> &Priors {
        self
    }
}

/// Seconds of all terms together, given those of each, each changed by a factor.
pub(super) fn total<N>(terms: &[Term<N>], seconds: &[f64], scale: impl Fn(&Term<N>) -> f64) -> f64 {
    physics::total(terms.iter().zip(seconds).map(|(term, seconds)| (term.lane, term.cpu, seconds * scale(term))))
}

/// See [`Priors::uncertain`].
pub(super) fn uncertain<N>(terms: &[Term<N>], seconds: &[f64]) -> f64 {
    let (mut all, mut context, mut experts) = (0.0, 0.0, 0.0);
    for (term, seconds) in terms.iter().zip(seconds) {
        all += seconds;
        match term.concern {
            Concern::Context => context += seconds,
            Concern::Experts => experts += seconds,
            Concern::Other => {}
        }
    }
    if all > 0.0 { (CONTEXT * context / all).hypot(EXPERTS * experts / all) } else { 0.0 }
}

/// Priors whose parameters are found by key.
#[derive(Debug)]
pub(super) struct Keyed {
    values: HashMap<Key, f64, Keeps>,
    priors: &'static Priors,
}

static SHIPPED: LazyLock<Keyed> = LazyLock::new(|| Keyed::of(Priors::shipped()));

impl Keyed {
    /// Those that ship with the program.
    pub fn shipped() -> &'static Self {
        &SHIPPED
    }

    fn of(priors: &'static Priors) -> Self {
        Self { values: priors.parameters.iter().map(|(name, value)| (Key::of(name), *value)).collect(), priors }
    }
}

impl Parameters for Keyed {
    type Name = Key;

    fn value(&self, name: &Key) -> f64 {
        self.values.get(name).copied().unwrap_or(0.0)
    }

    fn priors(&self) -> &Priors {
        self.priors
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Backend, ModelCosts, ModelFacts, Placement, SpeedQuestion, estimate, estimate_with};
    use super::*;
    use crate::{device_table, reference};

    #[test]
    fn no_two_parameters_share_a_key() {
        let keyed = Keyed::shipped();
        assert_eq!(keyed.values.len(), Priors::shipped().parameters.len());
        for (name, value) in &Priors::shipped().parameters {
            assert_eq!(keyed.value(&Key::of(name)).to_bits(), value.to_bits(), "{name}");
        }
    }

    #[test]
    fn keys_and_text_give_the_same_speeds_to_the_last_bit() {
        let costs = |model: &reference::ReferenceModel| {
            let mut facts = serde_json::to_value(&model.shape).expect("a tree");
            facts["arch"] = model.architecture.clone().into();
            let facts = ModelFacts::from_json(&facts);
            ["Q8_0", "Q4_K_M"].map(|quantization| ModelCosts::from_facts(&facts, quantization, None))
        };
        let models: Vec<ModelCosts> = reference::all().iter().step_by(3).flat_map(costs).flatten().collect();
        let host = device_table::by_key("cpu-desktop").expect("in the table");
        let mut compared = 0;
        for device in device_table::all() {
            for backend in [Backend::Cuda, Backend::Rocm, Backend::Vulkan, Backend::Metal, Backend::Cpu] {
                for costs in models.iter().skip(compared % 7).step_by(7) {
                    let mut question = SpeedQuestion::on(costs, device, backend);
                    if let Some(share) = question.devices.first_mut().filter(|_| compared % 2 == 1) {
                        share.layers = 0.75;
                        question.placement = Placement { host_layers: 0.25, host_experts: 0.25, host_output: false };
                        question.host = Some(host);
                    }
                    let text = estimate_with(&question, Priors::shipped());
                    assert_eq!(estimate(&question), text, "{}", device.name);
                    compared += usize::from(text.is_ok());
                }
            }
        }
        assert!(compared > 1000, "{compared}");
    }
}
