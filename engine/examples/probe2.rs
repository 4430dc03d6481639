//! x
use muster_engine::worker::*;
use muster_proto::*;
fn main() {
    if std::env::args().nth(1).as_deref() == Some(muster_engine::WORKER_ARGUMENT) { muster_engine::worker_main(); return; }
    let path = std::env::args().nth(1).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let command = WorkerCommand::this_executable().unwrap();
    let arg = |i: usize, d: u32| std::env::args().nth(i).and_then(|v| v.parse().ok()).unwrap_or(d);
    for n in 1..=arg(4, 33) {
        let settings = EngineSettings { context: ContextTokens::new(arg(2, 8192)), ubatch: arg(3, 512), gpu_layers: Some(n), ..Default::default() };
        let real = runtime.block_on(size(&command, SizeRequest { path: path.clone().into(), settings: settings.clone(), devices: vec![PhantomDevice::new("GPU0", PhantomBackend::Cuda, Bytes::from_gib(4000))], options: SizeOptions::default() })).unwrap().need;
        println!("{n} {:?} {}", real.devices.iter().map(|d| d.compute.get()).collect::<Vec<_>>(), real.host.compute.get());
    }
}
