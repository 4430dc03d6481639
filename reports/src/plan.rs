//! What was decided and why.

use std::collections::BTreeMap;

use muster_proto::{Candidate, DesiredAssignment, MachineId, MachinePlan, Plan};

use crate::layout::{Grid, heading, known, plain, sentence, toned};
use crate::style::{Style, Tone};

/// For each machine the decision, and every candidate with a check mark or the reason why it lost. Machines that are not
/// in `names` are called by their ids.
pub fn plan_page(plan: &Plan, names: &BTreeMap<MachineId, String>, style: &Style) -> String {
    if plan.machines.is_empty() {
        let hint = "nothing is planned: enrol a machine with `muster token create`, import a model with `muster models \
                    import FILE`, then say what should run with `muster policy apply FILE`";
        return sentence(hint, Tone::Quiet, style);
    }
    let machines: Vec<String> = plan
        .machines
        .iter()
        .map(|(id, planned)| {
            let name = names.get(id).filter(|name| !name.is_empty()).cloned().unwrap_or_else(|| id.to_string());
            machine(&name, planned, style)
        })
        .collect();
    machines.join("\n")
}

fn machine(name: &str, planned: &MachinePlan, style: &Style) -> String {
    let MachinePlan { assignment, candidates, blocked } = planned;
    let mut page = match (assignment, blocked) {
        (Some(assignment), _) => {
            heading(format!("{name}: {} in {}", assignment.model, assignment.quantization), style)
                + &sentence(terms(assignment), Tone::Plain, style)
        }
        (None, Some(blocked)) => {
            heading(format!("{name}: undecided"), style) + &sentence(blocked, Tone::Waiting, style)
        }
        (None, None) => {
            let why = if candidates.is_empty() {
                "no candidate: import a model that the policy names"
            } else {
                "nothing fits"
            };
            heading(format!("{name}: nothing"), style) + &sentence(why, Tone::Bad, style)
        }
    };
    if !candidates.is_empty() {
        page += &candidates_table(candidates, style);
    }
    page
}

/// How the chosen artifact runs and what is expected of it.
fn terms(assignment: &DesiredAssignment) -> String {
    let settings = &assignment.settings;
    let terms = format!(
        "for {}, {} × {} of context, {} KV cache; takes {}",
        assignment.role,
        settings.parallel,
        settings.context,
        settings.kv_type,
        assignment.prediction.memory.total()
    );
    match assignment.prediction.decode {
        Some(decode) => format!("{terms}, {decode} expected"),
        None => terms,
    }
}

fn candidates_table(candidates: &[Candidate], style: &Style) -> String {
    let header = ["", "CANDIDATE", "BITS", "NEEDS", "DECODE", "VERDICT"];
    let mut grid = Grid::new(style, &header).right(&[2, 3, 4]).whole(&[0, 2, 3, 4]);
    for candidate in candidates {
        let Candidate { model, quantization, digest: _, bits_per_weight, needs, decode, rejected } = candidate;
        let (mark, verdict) = match rejected {
            None => (toned("✓", Tone::Good), toned("chosen", Tone::Good)),
            Some(rejection) => (toned("✗", Tone::Bad), plain(rejection.to_string())),
        };
        grid.row(vec![
            mark,
            plain(format!("{model} {quantization}")),
            plain(format!("{bits_per_weight:.2}")),
            known(*needs),
            known(*decode),
            verdict,
        ]);
    }
    grid.render()
}
