//! Every report as it is read, in files beside this one.

use insta::assert_snapshot;
use muster_proto::{AgentStatus, Benchmark, Estimate, Model, Observed, Plan};
use muster_reports::*;

use crate::samples::{self, NOW};

const NARROW: Style = Style { color: false, width: 80 };
const WIDE: Style = Style { color: false, width: 120 };

/// Both widths of one report in one snapshot.
fn both(report: impl Fn(&Style) -> String) -> String {
    format!("{}\n{}\n{}", report(&NARROW), "=".repeat(120), report(&WIDE))
}

#[test]
fn machines() {
    assert_snapshot!(both(|style| machines_table(&samples::machines(), NOW, style)));
}

#[test]
fn machine() {
    let plan = samples::plan();
    let planned = plan.machines.get(&samples::machine().id);
    assert_snapshot!(both(|style| machine_page(&samples::machine(), planned, &[], NOW, style)));
}

#[test]
fn machine_that_has_said_nothing() {
    assert_snapshot!(machine_page(&samples::bare_machine(), None, &[], NOW, &NARROW));
}

#[test]
fn models() {
    assert_snapshot!(both(|style| models_table(&samples::models(), style)));
}

#[test]
fn model() {
    assert_snapshot!(both(|style| model_page(&samples::model(), style)));
}

#[test]
fn plan() {
    assert_snapshot!(both(|style| plan_page(&samples::plan(), &samples::names(), style)));
}

#[test]
fn tokens() {
    assert_snapshot!(both(|style| tokens_table(&samples::tokens(), NOW, style)));
}

#[test]
fn admins() {
    assert_snapshot!(both(|style| admins_table(&samples::admins(), NOW, style)));
}

#[test]
fn status() {
    assert_snapshot!(both(|style| status_page(&samples::status(), NOW, style)));
}

#[test]
fn status_of_a_new_controller() {
    assert_snapshot!(status_page(&samples::new_status(), NOW, &NARROW));
}

#[test]
fn agent_status() {
    assert_snapshot!(both(|style| agent_status_page(&samples::agent_status(), style)));
}

#[test]
fn agent_status_before_enrolment() {
    let status = AgentStatus { last_error: Some("the token has expired".into()), ..AgentStatus::default() };
    assert_snapshot!(agent_status_page(&status, &NARROW));
}

#[test]
fn events() {
    assert_snapshot!(both(|style| events_table(&samples::events(), style)));
}

#[test]
fn laptop_with_two_gpus() {
    assert_snapshot!(both(|style| inventory_page(&samples::laptop(), style)));
}

#[test]
fn inventory() {
    assert_snapshot!(both(|style| inventory_page(&samples::inventory(), style)));
}

#[test]
fn inventory_of_which_little_could_be_read() {
    assert_snapshot!(inventory_page(&samples::bare_inventory(), &NARROW));
}

#[test]
fn benchmark() {
    assert_snapshot!(both(|style| benchmark_table(&samples::benchmark(), style)));
}

#[test]
fn observed() {
    assert_snapshot!(both(|style| observed_page(&samples::observed(), style)));
}

#[test]
fn predictions() {
    let pairs = samples::prediction_pairs();
    let pairs: Vec<_> = pairs.iter().map(|(label, predicted, measured)| (label.clone(), predicted, measured)).collect();
    assert_snapshot!(both(|style| prediction_table(&pairs, style)));
}

/// Three widths of one estimate in one snapshot.
fn estimated(estimate: &Estimate) -> String {
    let page = |width| estimate_page(estimate, &Style { color: false, width });
    [60, 80, 120].map(|width| format!("{}\n{}", "=".repeat(width), page(width))).join("\n")
}

#[test]
fn estimate_that_fits() {
    assert_snapshot!(estimated(&samples::estimate()));
}

#[test]
fn estimate_that_is_short() {
    assert_snapshot!(estimated(&samples::short_estimate()));
}

#[test]
fn estimate_over_devices_and_main_memory() {
    assert_snapshot!(estimated(&samples::split_estimate()));
}

#[test]
fn estimate_on_a_processor() {
    assert_snapshot!(estimated(&samples::cpu_estimate()));
}

#[test]
fn empty_lists_say_what_to_do_next() {
    let nothing = Observed { deployments: vec![], ..samples::observed() };
    let reports = [
        machines_table(&[], NOW, &NARROW),
        models_table(&[] as &[Model], &NARROW),
        plan_page(&Plan::default(), &samples::names(), &NARROW),
        tokens_table(&[], NOW, &NARROW),
        admins_table(&[], NOW, &NARROW),
        events_table(&[], &NARROW),
        benchmark_table(&Benchmark { points: vec![], ..samples::benchmark() }, &NARROW),
        observed_page(&nothing, &NARROW),
        prediction_table(&[], &NARROW),
    ];
    assert_snapshot!(reports.join("\n"));
}
