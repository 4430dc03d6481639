//! Makes `engine/data/profiles/`: the sizing profiles of the reference models, by backend, and their weights by
//! quantization. Two workers at a time.
//!
//!     cargo build --workspace --example make_profiles && target/debug/examples/make_profiles engine/data/profiles [--whole] [weights] [BACKEND]...
//!
//! Without a backend: the weights and all of them. `--whole` leaves out placements of some layers, in a third of the time.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use muster_engine::maker::{ModelSpec, Quantization};
use muster_engine::profile::SizingProfile;
use muster_engine::profile::shipped::{BACKENDS, QUANTIZATIONS, profile_entry, weights_entry};
use muster_engine::reference::{self, ReferenceModel};
use muster_engine::worker::{
    MakeRequest, PhantomBackend, ProfileBackend, ProfileDepth, ProfileRequest, Weights, WorkerCommand, make_model,
    profile,
};
use tokio::sync::Semaphore;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(muster_engine::WORKER_ARGUMENT) {
        return muster_engine::worker_main();
    }
    let mut arguments = std::env::args().skip(1);
    let Some(folder) = arguments.next().map(PathBuf::from) else {
        eprintln!("make_profiles FOLDER [BACKEND]...");
        return ExitCode::from(2);
    };
    let mut wanted: Vec<String> = arguments.collect();
    let whole = wanted.iter().position(|word| word == "--whole").map(|index| wanted.remove(index));
    let depth = if whole.is_some() { ProfileDepth::Whole } else { ProfileDepth::Parts };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(Failure::from).and_then(|runtime| runtime.block_on(run(&folder, &wanted, depth))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("make_profiles: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(folder: &Path, wanted: &[String], depth: ProfileDepth) -> Result<(), Failure> {
    fs::create_dir_all(folder)?;
    let scratch = Arc::new(tempfile::tempdir()?);
    let command = Arc::new(WorkerCommand::this_executable()?);
    if wanted.is_empty() || wanted.iter().any(|name| name == "weights") {
        let entries = each(&command, &scratch, |command, scratch, model| async move {
            let mut profiles = BTreeMap::new();
            for name in QUANTIZATIONS {
                let made =
                    one(&command, scratch.path(), model, name, PhantomBackend::Cuda, ProfileDepth::Weights).await?;
                profiles.insert(name.to_owned(), made);
            }
            if model.default_quantization().name() != "Q4_K_M" {
                let name = model.default_quantization().name();
                let made =
                    one(&command, scratch.path(), model, name, PhantomBackend::Cuda, ProfileDepth::Weights).await?;
                profiles.insert(name.to_owned(), made);
            }
            Ok(weights_entry(&model.id, &profiles)?)
        })
        .await?;
        write(folder, "weights", &entries)?;
    }
    for name in BACKENDS {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| wanted == name) {
            continue;
        }
        let backend = match name {
            "cuda" => PhantomBackend::Cuda,
            "vulkan" => PhantomBackend::Vulkan,
            "metal" => PhantomBackend::Metal,
            _ => PhantomBackend::Rocm,
        };
        let entries = each(&command, &scratch, |command, scratch, model| async move {
            let quantization = model.default_quantization().name();
            let made = one(&command, scratch.path(), model, quantization, backend, depth).await?;
            Ok(profile_entry(&model.id, &made)?)
        })
        .await?;
        write(folder, name, &entries)?;
    }
    Ok(())
}

/// An entry for each reference model, in their order.
async fn each<F>(
    command: &Arc<WorkerCommand>,
    scratch: &Arc<tempfile::TempDir>,
    make: impl Fn(Arc<WorkerCommand>, Arc<tempfile::TempDir>, &'static ReferenceModel) -> F,
) -> Result<Vec<Vec<u8>>, Failure>
where
    F: Future<Output = Result<Vec<u8>, Failure>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(2));
    let tasks: Vec<_> = reference::all()
        .iter()
        .map(|model| {
            let (job, places) = (make(command.clone(), scratch.clone(), model), places.clone());
            tokio::spawn(async move {
                let _place = places.acquire().await?;
                job.await.map_err(|error| Failure::from(format!("{}: {error}", model.id)))
            })
        })
        .collect();
    let mut entries = Vec::new();
    for task in tasks {
        entries.push(task.await??);
    }
    Ok(entries)
}

async fn one(
    command: &WorkerCommand,
    scratch: &Path,
    model: &'static ReferenceModel,
    quantization: &str,
    backend: PhantomBackend,
    depth: ProfileDepth,
) -> Result<SizingProfile, Failure> {
    let quantization: Quantization =
        Quantization::all().find(|known| known.name() == quantization).ok_or("an unknown quantization")?;
    let path = scratch.join(format!("{}-{}.gguf", model.id, quantization.name()));
    let spec = ModelSpec::from(model);
    make_model(command, MakeRequest { spec, quantization, path: path.clone(), weights: Weights::HeaderOnly }).await?;
    let kind = ProfileBackend { backend, capability: None };
    let start = Instant::now();
    let made = profile(command, ProfileRequest { path: path.clone(), backend: Some(kind), depth }, |_| ()).await?;
    if depth != ProfileDepth::Weights {
        let (asked, worst) = (made.dry_runs(), made.worst_miss());
        let bytes = made.to_bytes().len();
        eprintln!(
            "{} {}: {asked} dry runs in {:.1} s, {bytes} bytes, worst {worst:.5}",
            kind.key(),
            model.id,
            start.elapsed().as_secs_f64()
        );
    }
    fs::remove_file(path)?;
    Ok(made)
}

fn write(folder: &Path, name: &str, entries: &[Vec<u8>]) -> Result<(), Failure> {
    let path = folder.join(format!("{name}.bin"));
    fs::write(&path, entries.concat())?;
    eprintln!("{}: {} models", path.display(), entries.len());
    Ok(())
}
