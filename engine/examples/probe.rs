//! x
use muster_engine::worker::*;
use muster_proto::Bytes;
fn main() {
    if std::env::args().nth(1).as_deref() == Some(muster_engine::WORKER_ARGUMENT) { muster_engine::worker_main(); return; }
    let path = std::env::args().nth(1).unwrap();
    let backend = match std::env::args().nth(2).as_deref() { Some("vulkan") => PhantomBackend::Vulkan, Some("metal") => PhantomBackend::Metal, Some("rocm") => PhantomBackend::Rocm, _ => PhantomBackend::Cuda };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let command = WorkerCommand::this_executable().unwrap();
    let start = std::time::Instant::now(); let out = runtime.block_on(profile(&command, ProfileRequest { path: path.into(), device: PhantomDevice::new("CUDA", backend, Bytes::from_gib(1)) }));
    eprintln!("{:?}", start.elapsed());
    println!("{:?}", out.map(|o| String::from_utf8(o)));
}
