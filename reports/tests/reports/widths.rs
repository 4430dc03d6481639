//! No line is wider than the terminal, whatever the names are; colour changes no width and no letter.

use muster_proto::{AgentStatus, Machine};
use muster_reports::*;
use proptest::prelude::*;
use unicode_width::UnicodeWidthStr;

use crate::samples::{self, NOW};

fn every_report(name: &str, style: &Style) -> Vec<String> {
    let text = || name.to_owned();
    let renamed = |mut machine: Machine| {
        machine.hostname = text();
        if let Some(observed) = &mut machine.observed {
            for deployment in &mut observed.deployments {
                deployment.model = text();
                deployment.reason = Some(text());
            }
        }
        machine
    };
    let machines: Vec<_> = samples::machines().into_iter().map(renamed).collect();
    let mut inventory = samples::inventory();
    inventory.devices[0].description = text();
    inventory.failures[0].reason = text();
    let mut laptop = samples::laptop();
    laptop.hardware.gpus[0].name = text();
    laptop.hardware.gpus[1].used_by[0].name = Some(text());
    laptop.hardware.chassis.model = Some(text());
    let mut plan = samples::plan();
    let mut names = samples::names();
    for (id, planned) in &mut plan.machines {
        names.insert(*id, text());
        for candidate in &mut planned.candidates {
            candidate.model = text();
        }
    }
    let mut models = samples::models();
    models[0].name = text();
    models[1].licence = Some(text());
    let mut events = samples::events();
    events[1].detail = text();
    events[3].action = text();
    let mut status = samples::status();
    status.data_dir = text();
    let mut agent = samples::agent_status();
    agent.last_error = Some(text());
    let unenrolled = AgentStatus { last_error: Some(text()), ..AgentStatus::default() };
    let mut benchmark = samples::benchmark();
    benchmark.points[0].device = text();
    let pairs = samples::prediction_pairs();
    let pairs: Vec<_> = pairs.iter().map(|(_, predicted, measured)| (text(), predicted, measured)).collect();
    let readiness = crate::readiness::report(name);
    let mut reports = vec![
        readiness_page(&readiness, style),
        machines_table(&machines, NOW, style),
        models_table(&models, style),
        plan_page(&plan, &names, style),
        tokens_table(&samples::tokens(), NOW, style),
        admins_table(&samples::admins(), NOW, style),
        status_page(&status, NOW, style),
        agent_status_page(&agent, style),
        agent_status_page(&unenrolled, style),
        events_table(&events, style),
        inventory_page(&inventory, style),
        inventory_page(&laptop, style),
        benchmark_table(&benchmark, style),
        prediction_table(&pairs, style),
    ];
    for mut estimate in
        [samples::estimate(), samples::short_estimate(), samples::split_estimate(), samples::cpu_estimate()]
    {
        estimate.model.name = text();
        estimate.sentence += &text();
        estimate.warnings.push(text());
        if let Some(device) = estimate.devices.first_mut() {
            device.name = text();
            device.description = Some(text());
        }
        reports.push(estimate_page(&estimate, style));
    }
    reports.extend(models.iter().map(|model| model_page(model, style)));
    reports.extend(machines.iter().flat_map(|machine| {
        let page = machine_page(
            machine,
            plan.machines.get(&machine.id),
            &readiness.machines[1..2].iter().map(|row| row.assessment.clone()).collect::<Vec<_>>(),
            NOW,
            style,
        );
        [Some(page), machine.observed.as_ref().map(|observed| observed_page(observed, style))].into_iter().flatten()
    }));
    reports
}

/// Without escape sequences of the form `ESC [ … m`.
fn uncoloured(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |plain, part| plain + part.split_once('m').expect("an ended sequence").1)
}

fn check(name: &str, width: usize) {
    let plain = every_report(name, &Style { color: false, width });
    for report in &plain {
        assert!(report.ends_with('\n') && !report.contains('\u{1b}'), "{report}");
        for line in report.lines() {
            assert!(line.width() <= width, "{} of {width} columns: {line}\n{report}", line.width());
        }
    }
    let coloured = every_report(name, &Style { color: true, width });
    assert!(coloured.iter().any(|report| report.contains("\u{1b}[")));
    for (plain, coloured) in plain.iter().zip(&coloured) {
        let trimmed: Vec<_> = uncoloured(coloured).lines().map(|line| line.trim_end().to_owned()).collect();
        assert_eq!(plain.lines().collect::<Vec<_>>(), trimmed);
    }
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    let long = "a-name-without-a-place-to-break-".repeat(9);
    for name in
        ["desk-7", "", &long, "机器人工作站七号的名字", "two\nlines", "\u{1b}[31mred", "e\u{301}\u{200d}👩‍💻 desk"]
    {
        for width in [40, 53, 80, 100, 120, 300] {
            check(name, width);
        }
    }
}

#[test]
fn widths_that_make_no_sense_do_no_harm() {
    let narrowest = every_report("desk-7", &Style { color: false, width: Style::NARROWEST });
    assert_eq!(every_report("desk-7", &Style { color: false, width: 0 }), narrowest);
    assert!(!every_report("desk-7", &Style { color: false, width: usize::MAX }).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn no_line_is_wider_than_the_terminal_for_any_name(name in "\\PC{0,60}", width in 40..160_usize) {
        check(&name, width);
    }
}
