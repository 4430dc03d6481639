//! An agent without a model: what it takes of the machine and of the network while nothing happens.

use std::fs;
use std::time::Duration;

use muster_proto::Bytes;
use muster_tests::{Agent, Controller, Relay};

use crate::{Figure, pass, resident};

/// What inventory and first messages need to be over.
const SETTLE: Duration = Duration::from_secs(10);

/// The kernel's unit of time in /proc, the same on every Linux that it runs on (`USER_HZ`).
const TICKS: f64 = 100.0;

/// CPU time of a process, its own threads only, in seconds.
fn cpu(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a running process");
    let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
    // After the name: state is field 3, so that utime (14) and stime (15) are the 12th and 13th here.
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("ticks")).sum();
    ticks as f64 / TICKS
}

pub fn measure(watched: Duration) -> Vec<Figure> {
    let mut controller = Controller::start();
    let relay = Relay::to(&controller.address);
    let mut agent = Agent::new().start_at(&controller, &relay.address.to_string());
    pass(SETTLE);
    let (pid, controller_pid) = (agent.process().pid(), controller.process().pid());
    // What the agent counts itself: sampling memory once a minute, watching for changes every few seconds.
    let watching = |agent: &Agent| {
        muster_tests::Metrics::scrape(agent.endpoint().address()).value("muster_agent_watching_cpu_seconds")
    };
    let watched_before = watching(&agent);
    let (bytes, used, controller_used) = (relay.up() + relay.down(), cpu(pid), cpu(controller_pid));
    pass(watched);
    let seconds = watched.as_secs_f64();
    let percent = (cpu(pid) - used) / seconds * 100.0;
    let controller_percent = (cpu(controller_pid) - controller_used) / seconds * 100.0;
    let wire = (relay.up() + relay.down() - bytes) as f64 / seconds * 60.0;
    let watching_percent = (watching(&agent) - watched_before) / seconds * 100.0;
    let (resident, controller_resident) = (resident(pid), resident(controller_pid));
    let over = format!("over {} s", watched.as_secs());
    vec![
        Figure::new(
            "idle agent without a model, RSS",
            resident.to_string(),
            "≤ 25 MB",
            Some(resident <= Bytes::new(25_000_000)),
        ),
        Figure::new(
            format!("idle agent, CPU {over}"),
            format!("{percent:.3} % of a core"),
            "≤ 0.1 %",
            Some(percent <= 0.1),
        ),
        Figure::new(
            format!("of that for sampling memory and watching for changes, {over}"),
            format!("{watching_percent:.4} % of a core"),
            "≤ 0.05 %",
            Some(watching_percent <= 0.05),
        ),
        Figure::new(
            format!("idle agent, bytes on the wire both ways, above TCP, {over}"),
            format!("{wire:.0} B/min"),
            "≤ 1 KB/min",
            Some(wire <= 1000.0),
        ),
        Figure::new("controller with one machine, RSS", controller_resident.to_string(), "", None),
        Figure::new(
            format!("controller with one machine, CPU {over}"),
            format!("{controller_percent:.3} % of a core"),
            "",
            None,
        ),
    ]
}
