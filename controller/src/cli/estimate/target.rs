//! Which devices a question is about: those of the flags, a known device, an enrolled machine, or this machine's CPU.

use muster_engine::estimate::{SpeedBasis, TargetDevice, machine_devices};
use muster_engine::worker::{self, PhantomBackend, WorkerCommand};
use muster_proto::{Bytes, DeviceKind, Machine, wire};

use super::super::args::{Backend, EstimateArgs, Global};
use super::super::{Failure, connect};

/// The devices, the main memory and what is known of their speed.
pub(super) struct Target {
    pub devices: Vec<TargetDevice>,
    pub host_memory: Option<Bytes>,
    pub speed: SpeedBasis,
}

/// What is wrong with the flags of devices.
pub(super) fn check(arguments: &EstimateArgs) -> Result<(), Failure> {
    if arguments.backend == Some(Backend::Cpu) && !(arguments.device.is_empty() && arguments.on.is_none()) {
        return Err(Failure::usage("--backend cpu takes no device: leave --device and --on away"));
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
    if arguments.device.is_empty() {
        return this_cpu(command, host_memory).await;
    }
    let backend = phantom(arguments.backend.unwrap_or(Backend::Cuda)).unwrap_or(PhantomBackend::Cuda);
    let devices = arguments.device.iter().map(|device| TargetDevice::new(&device.name, backend, device.size)).collect();
    Ok(Target { devices, host_memory, speed: SpeedBasis::None })
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
        host_memory: Some(inventory.memory.available),
        speed: machine.benchmark.map_or(SpeedBasis::None, |benchmark| SpeedBasis::Benchmark(Box::new(benchmark))),
    })
}

/// This machine's CPU: all of main memory, as llama.cpp reports it.
async fn this_cpu(command: &WorkerCommand, host_memory: Option<Bytes>) -> Result<Target, Failure> {
    let host_memory = match host_memory {
        Some(memory) => Some(memory),
        None => {
            let devices = worker::devices(command).await.map_err(|error| Failure::of(&error))?;
            devices.into_iter().find(|device| device.kind == DeviceKind::Cpu).and_then(|cpu| cpu.memory_total)
        }
    };
    Ok(Target { devices: Vec::new(), host_memory, speed: SpeedBasis::None })
}
