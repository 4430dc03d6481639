//! Which devices a question is about: those of the flags, a known device, an enrolled machine, or this machine's CPU.

use std::cmp::Ordering;

use muster_engine::device_table::{self, KnownDevice};
use muster_engine::estimate::{DeviceError, TargetDevice, default_backend, machine_devices, memory_note};
use muster_engine::worker::{self, PhantomBackend, WorkerCommand};
use muster_proto::{Benchmark, Bytes, Device, DeviceKind, Inventory, Machine, wire};

use super::super::args::{Backend, EstimateArgs, Global};
use super::super::{Failure, connect};

/// What a device of `--on` is called where no `--device` names it.
const ONLY_DEVICE: &str = "gpu0";

/// The devices, the main memory and what is known of their speed.
#[derive(Default)]
pub(super) struct Target {
    pub devices: Vec<TargetDevice>,
    pub host_memory: Option<Bytes>,
    pub host: Option<&'static KnownDevice>,
    pub benchmark: Option<Benchmark>,
    /// What the reader should know.
    pub notes: Vec<String>,
}

/// What is wrong with the flags of devices.
pub(super) fn check(arguments: &EstimateArgs) -> Result<(), Failure> {
    if arguments.backend == Some(Backend::Cpu) && !arguments.device.is_empty() {
        return Err(Failure::usage("--backend cpu takes no device: leave --device away"));
    }
    if arguments.device.is_empty()
        && arguments.on.is_none()
        && arguments.backend.is_some_and(|backend| backend != Backend::Cpu)
    {
        return Err(Failure::usage("--backend names what drives a device: say which with --device or --on"));
    }
    let devices: Vec<_> =
        arguments.device.iter().map(|d| TargetDevice::new(&d.name, PhantomBackend::Cuda, d.size)).collect();
    TargetDevice::check(&devices).map_err(|error| Failure::usage(error.to_string()))
}

fn phantom(backend: Backend) -> Option<PhantomBackend> {
    match backend {
        Backend::Cuda => Some(PhantomBackend::Cuda),
        Backend::Vulkan => Some(PhantomBackend::Vulkan),
        Backend::Rocm => Some(PhantomBackend::Rocm),
        Backend::Metal => Some(PhantomBackend::Metal),
        Backend::Cpu => None,
    }
}

pub(super) async fn find(
    global: &Global,
    arguments: &EstimateArgs,
    command: &WorkerCommand,
) -> Result<Target, Failure> {
    if let Some(name) = &arguments.machine {
        return machine(global, name).await;
    }
    let host_memory = arguments.host.map(|size| size.0);
    if let Some(name) = &arguments.on {
        let cpu = arguments.backend == Some(Backend::Cpu);
        let found = device_table::find_variant(name, cpu).map_err(|error| Failure::usage(error.to_string()))?;
        let mut target = on(arguments, found.device)?;
        target.notes.extend(found.note().map(|note| format!("{name:?} is {note}")));
        return Ok(Target { host_memory, ..target });
    }
    if arguments.device.is_empty() {
        return this_cpu(command, host_memory).await;
    }
    let backend = arguments.backend.and_then(phantom).unwrap_or(PhantomBackend::Cuda);
    let devices = arguments.device.iter().map(|device| TargetDevice::new(&device.name, backend, device.size)).collect();
    Ok(Target { devices, host_memory, ..Target::default() })
}

/// A known device; with `--device`, one for each of those.
fn on(arguments: &EstimateArgs, known: &'static KnownDevice) -> Result<Target, Failure> {
    if known.is_cpu() {
        if !arguments.device.is_empty() || arguments.backend.is_some_and(|backend| backend != Backend::Cpu) {
            return Err(Failure::usage(format!(
                "{} is a processor: it takes no --device, and no --backend but cpu",
                known.name
            )));
        }
        return Ok(Target { host: Some(known), ..Target::default() });
    }
    let backend = match arguments.backend {
        None => default_backend(known),
        Some(backend) => phantom(backend),
    };
    let backend = backend.ok_or_else(|| {
        Failure::usage(format!("{} is a GPU: --backend cpu does not drive it; leave --on away", known.name))
    })?;
    let wrong = |error: DeviceError| Failure::usage(error.to_string());
    let mut notes = Vec::new();
    let devices = if arguments.device.is_empty() {
        notes.extend(memory_note(known));
        vec![TargetDevice::known(ONLY_DEVICE, known, backend, None).map_err(wrong)?]
    } else {
        let device =
            |device: &super::WrittenDevice| TargetDevice::known(&device.name, known, backend, Some(device.size));
        arguments.device.iter().map(device).collect::<Result<_, _>>().map_err(wrong)?
    };
    Ok(Target { devices, notes, ..Target::default() })
}

/// An enrolled machine as its agent last saw it.
async fn machine(global: &Global, name: &str) -> Result<Target, Failure> {
    let mut client = connect::connect(global).await?;
    let answer = client.get_machine(wire::GetMachineRequest { machine: name.to_owned() }).await?;
    let machine = Machine::try_from(answer.into_inner())?;
    let inventory = machine.inventory.ok_or_else(|| {
        Failure::new(format!("{} has not said yet what it is: start its agent once", machine.hostname))
    })?;
    Ok(Target {
        devices: machine_devices(&inventory),
        host_memory: Some(inventory.memory_to_plan()),
        host: inventory
            .cpu
            .brand
            .as_deref()
            .and_then(|brand| device_table::find(brand).ok())
            .filter(|cpu| cpu.is_cpu()),
        benchmark: machine.benchmark,
        notes: typical_note(&inventory).into_iter().collect(),
    })
}

/// Said where typically less or more is free than now, so that the figures are not taken for wrong.
fn typical_note(inventory: &Inventory) -> Option<String> {
    let typical = inventory.hardware.typical.as_ref()?;
    let of = |device: &Device| inventory.free_to_plan(device).cmp(&device.memory_free);
    let gpus = inventory.devices.iter().filter(|device| device.kind != DeviceKind::Cpu).map(of);
    let all: Vec<Ordering> = gpus.chain([inventory.memory_to_plan().cmp(&inventory.memory.available)]).collect();
    let now = if all.contains(&Ordering::Greater) {
        "less is free at the moment"
    } else if all.contains(&Ordering::Less) {
        "more is free now"
    } else {
        return None;
    };
    let days = typical.until.since(typical.since).as_secs().div_ceil(86_400).max(1);
    let days = if days == 1 { "the last day".to_owned() } else { format!("the last {days} days") };
    Some(format!("sized for the memory that its owner left free 95 % of the time in {days}; {now}"))
}

/// This machine's CPU: all of main memory, as llama.cpp reports it.
async fn this_cpu(command: &WorkerCommand, host_memory: Option<Bytes>) -> Result<Target, Failure> {
    let host_memory = if host_memory.is_some() {
        host_memory
    } else {
        let devices = worker::devices(command).await.map_err(|error| Failure::of(&error))?;
        devices.into_iter().find(|device| device.kind == DeviceKind::Cpu).and_then(|cpu| cpu.memory_total)
    };
    Ok(Target { host_memory, ..Target::default() })
}
