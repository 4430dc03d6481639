//! The report over a fleet.

use std::num::NonZero;
use std::thread;

use muster_proto::{
    Assessment, DeviceKind, EnrolmentState, FactTimes, FleetGpu, Inventory, Machine, MachineReadiness, ModelCoverage,
    Readiness, ReadinessReason, ReadinessReport, ReasonCause, RoleProfile, Timestamp,
};

use super::judge::{Judge, speaking, stale, without_facts};
use super::roles::{counts, serves};
use super::what_if::{Change, RUNGS, hypothetical, remedies};
use crate::reference;

/// What a part of the fleet comes to.
struct Judged {
    rows: Vec<MachineReadiness>,
    /// On how many machines each reference model would do.
    running: Vec<u32>,
    /// How many machines each of [`RUNGS`] makes ready.
    rungs: Vec<u32>,
}

impl Judged {
    fn add(&mut self, part: Self) {
        let Self { rows, running, rungs } = part;
        self.rows.extend(rows);
        self.running.iter_mut().zip(running).for_each(|(sum, more)| *sum += more);
        self.rungs.iter_mut().zip(rungs).for_each(|(sum, more)| *sum += more);
    }

    fn nothing() -> Self {
        Self { rows: Vec::new(), running: vec![0; reference::all().len()], rungs: vec![0; RUNGS.len()] }
    }
}

impl Judge {
    /// The readiness of all accepted machines, or of those in a group; with what `change` would make of those that are not
    /// ready.
    pub fn report(
        &self,
        machines: &[Machine],
        role: &RoleProfile,
        group: Option<&str>,
        change: Option<&Change>,
        now: Timestamp,
    ) -> ReadinessReport {
        let wanted: Vec<&Machine> = machines
            .iter()
            .filter(|machine| machine.enrolment == EnrolmentState::Accepted)
            .filter(|machine| group.is_none_or(|group| machine.groups.iter().any(|own| own == group)))
            .collect();
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let size = wanted.len().div_ceil(threads).max(1);
        let mut judged = Judged::nothing();
        thread::scope(|scope| {
            let part = |part: &[&Machine]| self.part(part, role, change, now);
            let running: Vec<_> = wanted.chunks(size).map(|chunk| scope.spawn(move || part(chunk))).collect();
            for part in running {
                judged.add(part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
        });
        let Judged { rows, running, rungs } = judged;
        let coverage = reference::all().iter().zip(running).filter(|(model, _)| serves(model, role));
        let coverage = coverage.map(|(model, machines)| ModelCoverage {
            model: model.id.clone(),
            name: model.name.clone(),
            parameters: model.parameters(),
            counts: counts(model, role),
            machines,
        });
        ReadinessReport::new(now, role.clone(), group.map(str::to_owned), rows, coverage.collect())
            .with_changes(remedies(&rungs), change.map(|change| change.asked().clone()))
    }

    fn part(&self, machines: &[&Machine], role: &RoleProfile, change: Option<&Change>, now: Timestamp) -> Judged {
        let mut judged = Judged::nothing();
        for machine in machines {
            let (mut row, running) = self.machine(machine, role, now);
            for model in running {
                judged.running[model] += 1;
            }
            if row.assessment.verdict == Readiness::NotReady
                && let Some(inventory) = &machine.inventory
            {
                let desk = self.desk(inventory);
                let benchmark = speaking(machine.benchmark.as_ref(), inventory);
                let then = |change: &Change| change.on(&desk, inventory);
                for (count, rung) in judged.rungs.iter_mut().zip(RUNGS.iter()) {
                    let does = then(rung)
                        .is_some_and(|(desk, measured)| self.does(&desk, benchmark.filter(|_| measured), role));
                    *count += u32::from(does);
                }
                row.what_if = change.and_then(then).map(|(desk, measured)| {
                    hypothetical(self.on_desk(&desk, benchmark.filter(|_| measured), role).assessment)
                });
            }
            judged.rows.push(row);
        }
        judged
    }

    /// One row, and which models would do.
    fn machine(&self, machine: &Machine, role: &RoleProfile, now: Timestamp) -> (MachineReadiness, Vec<usize>) {
        let Some(inventory) = &machine.inventory else {
            return (row(machine, None, without_facts(role)), Vec::new());
        };
        let found = self.find(inventory, machine.benchmark.as_ref(), role);
        let mut assessment = found.assessment;
        let heard = machine.last_seen.max(Some(inventory.collected_at)).filter(|_| !machine.online);
        if let Some(days) = heard.and_then(|heard| stale(heard, now)) {
            assessment.verdict = Readiness::Unknown;
            let remedy = Some("switch it on, or revoke it if it is gone".to_owned());
            assessment.reasons.insert(0, ReadinessReason { cause: ReasonCause::Stale { days }, remedy });
        }
        (row(machine, Some(inventory), assessment), found.running)
    }

    /// One machine's row for a role.
    pub fn row(&self, machine: &Machine, role: &RoleProfile, now: Timestamp) -> MachineReadiness {
        self.machine(machine, role, now).0
    }
}

fn row(machine: &Machine, inventory: Option<&Inventory>, assessment: Assessment) -> MachineReadiness {
    MachineReadiness {
        machine: machine.id,
        hostname: machine.hostname.clone(),
        groups: machine.groups.clone(),
        online: machine.online,
        os: inventory.map(|inventory| inventory.os.name.clone().unwrap_or_else(|| inventory.os.platform.clone())),
        cpu: inventory.and_then(|inventory| inventory.cpu.brand.clone()),
        chassis: inventory.and_then(|inventory| inventory.hardware.chassis.kind),
        memory_total: inventory.map(|inventory| inventory.memory.total),
        disk_free: inventory.and_then(|inventory| inventory.store_disk).map(|disk| disk.free),
        gpus: inventory.map(gpus).unwrap_or_default(),
        facts: FactTimes {
            seen: machine.last_seen,
            inventory: inventory.map(|inventory| inventory.collected_at),
            benchmark: machine.benchmark.as_ref().map(|benchmark| benchmark.measured_at),
            typical: inventory.and_then(|inventory| inventory.hardware.typical.as_ref()).map(|typical| typical.until),
        },
        assessment,
        what_if: None,
    }
}

/// Every GPU once; of an older agent, those that llama.cpp sees.
fn gpus(inventory: &Inventory) -> Vec<FleetGpu> {
    let joined = inventory.hardware.gpus.iter().map(|gpu| FleetGpu {
        name: gpu.name.clone(),
        vendor: Some(gpu.vendor),
        kind: gpu.kind,
        memory_total: gpu.memory_total,
        memory_free: gpu.memory_free,
        driver: gpu.driver.clone(),
        engine_device: gpu.engine_device.clone(),
        obstacle: gpu.obstacle.clone(),
    });
    let listed = inventory.devices.iter().filter(|device| device.kind != DeviceKind::Cpu).map(|device| FleetGpu {
        name: device.description.clone(),
        vendor: None,
        kind: device.kind,
        memory_total: device.memory_total,
        memory_free: device.memory_free,
        driver: device.driver.clone(),
        engine_device: Some(device.name.clone()),
        obstacle: None,
    });
    if inventory.hardware.gpus.is_empty() { listed.collect() } else { joined.collect() }
}
