//! Compiles the pipe protocol with protox (no protoc needed) and the C++ shim against the very sources that
//! `llama-cpp-sys-2` ships. The libraries themselves are linked by that crate, static or shared as its features say.
//! What the phantom devices take from the GPU backends' sources is in `build/upstream.rs`.

#[path = "build/upstream.rs"]
mod upstream;

use std::error::Error;
use std::path::PathBuf;

use cargo_metadata::MetadataCommand;

const SHIM: [&str; 15] = [
    "process.cpp",
    "phantom.cpp",
    "phantom_cuda.cpp",
    "phantom_metal.cpp",
    "phantom_rocm.cpp",
    "phantom_vulkan.cpp",
    "maker.cpp",
    "model.cpp",
    "overrides.cpp",
    "placement.cpp",
    "chat.cpp",
    "quantize.cpp",
    "quality.cpp",
    "profile.cpp",
    "trace.cpp",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto/engine.proto");
    let descriptors = protox::compile(["engine.proto"], ["proto"])?;
    tonic_prost_build::configure().build_server(false).build_client(false).compile_fds(descriptors)?;

    println!("cargo:rerun-if-changed=shim");
    println!("cargo:rerun-if-changed=build");
    let llama = llama_sources()?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    upstream::cut(&llama, &out)?;
    upstream::check_mirrored(&llama)?;
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").warnings(false);
    for folder in ["include", "ggml/include", "ggml/src", "common", "vendor", "src"] {
        build.include(llama.join(folder));
    }
    build.include(&out);
    for file in SHIM {
        build.file(PathBuf::from("shim").join(file));
    }
    build.compile("muster_shim");
    Ok(())
}

/// The folder `llama.cpp` of the pinned sys crate. First without the network, which is enough after any fetch.
fn llama_sources() -> Result<PathBuf, Box<dyn Error>> {
    let metadata = |option: Option<&str>| {
        let mut command = MetadataCommand::new();
        command.features(cargo_metadata::CargoOpt::AllFeatures);
        command.other_options(option.map(str::to_owned).into_iter().collect::<Vec<_>>()).exec()
    };
    let found = metadata(Some("--offline")).or_else(|_| metadata(None))?;
    let package = found
        .packages
        .iter()
        .find(|package| package.name.as_str() == "llama-cpp-sys-2")
        .ok_or("cargo metadata does not name llama-cpp-sys-2")?;
    let sources = package.manifest_path.parent().ok_or("a manifest without a folder")?.join("llama.cpp");
    Ok(sources.into_std_path_buf())
}
