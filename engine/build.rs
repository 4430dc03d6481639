//! Compiles the pipe protocol with protox (no protoc needed) and the C++ shim against the very sources that
//! `llama-cpp-sys-2` ships. The libraries themselves are linked by that crate, static or shared as its features say.

#[path = "build/upstream.rs"]
mod upstream;

use std::error::Error;
use std::path::PathBuf;

use cargo_metadata::MetadataCommand;

const SHIM: [&str; 5] = ["process.cpp", "phantom.cpp", "vulkan_upstream.cpp", "model.cpp", "chat.cpp"];

/// How llama.cpp's Vulkan backend decides, for shim/vulkan_upstream.cpp.
const VULKAN: [upstream::Cut; 3] = [
    upstream::Cut {
        file: "ggml/src/ggml-vulkan/ggml-vulkan-types.h",
        definitions: &[
            "static constexpr uint32_t num_argsort_pipelines",
            "static constexpr uint32_t num_topk_pipelines",
            "static constexpr std::initializer_list<ggml_op> topk_moe_early_softmax_norm{",
            "static constexpr std::initializer_list<ggml_op> topk_moe_sigmoid_norm_bias{",
            "static constexpr std::initializer_list<ggml_op> topk_moe_sqrt_softplus_norm_bias{",
            "static constexpr std::initializer_list<ggml_op> topk_moe_early_softmax ",
            "static constexpr std::initializer_list<ggml_op> topk_moe_late_softmax ",
            "static constexpr std::initializer_list<ggml_op> snake_pattern ",
            "static constexpr std::initializer_list<ggml_op> topk_qsa_pattern ",
            "static constexpr std::initializer_list<ggml_op> rms_norm_mul_add_mul_pattern ",
            "static constexpr std::initializer_list<ggml_op> rms_norm_mul_add_pattern ",
            "static constexpr std::initializer_list<ggml_op> rms_norm_mul_rope_view_set_rows_pattern ",
            "static constexpr std::initializer_list<ggml_op> rms_norm_view_set_rows_pattern ",
            "static constexpr std::initializer_list<ggml_op> rope_view_set_rows_pattern ",
            "static constexpr std::initializer_list<ggml_op> hc_post_gate_pattern ",
            "static constexpr std::array<ggml_type, 9> lightning_indexer_k_types ",
        ],
    },
    upstream::Cut {
        file: "ggml/src/ggml-vulkan/ggml-vulkan-debug.cpp",
        definitions: &["int64_t ggml_vk_get_op_batch_size("],
    },
    upstream::Cut {
        file: "ggml/src/ggml-vulkan/ggml-vulkan.cpp",
        definitions: &[
            "void * const vk_ptr_base ",
            "uint64_t vk_tensor_offset(",
            "bool ggml_vk_lightning_indexer_k_type_supported(",
            "bool ggml_vk_concat_supported(",
            "bool ggml_vk_dim01_contiguous(",
            "int ggml_vk_unary_mul_op_index(",
            "static bool ggml_vk_can_fuse_unary_mul(",
            "void ggml_vk_graph_optimize(",
            "static bool ggml_backend_vk_device_supports_op(",
        ],
    },
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto/engine.proto");
    let descriptors = protox::compile(["engine.proto"], ["proto"])?;
    tonic_prost_build::configure().build_server(false).build_client(false).compile_fds(descriptors)?;

    println!("cargo:rerun-if-changed=shim");
    println!("cargo:rerun-if-changed=build");
    let llama = llama_sources()?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets no OUT_DIR")?);
    upstream::write(&llama, &VULKAN, &out.join("upstream_vulkan.inc"))?;
    let mut build = cc::Build::new();
    build.include(&out);
    build.cpp(true).std("c++17").warnings(false);
    for folder in ["include", "ggml/include", "ggml/src", "common", "vendor", "src"] {
        build.include(llama.join(folder));
    }
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
