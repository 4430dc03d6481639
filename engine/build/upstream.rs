//! Cuts out of llama.cpp's own sources the functions that say how a GPU backend sizes and places: what a buffer of a
//! tensor takes, which operations it does, what it moves to itself, how it reorders a graph before memory is given out.
//!
//! The phantom devices (`shim/phantom*.cpp`) are compiled around these texts, so their rules are upstream's, by
//! construction, of the very version that is linked; none of them is written a second time. The rest of a backend's
//! source needs its GPU's toolchain and is left where it is. llama.cpp's fit comes in the same way, so that what it measures
//! with can be faster (`shim/placement.cpp`). A piece that upstream moved or renamed fails the build with
//! its name. It does not know what the pieces mean: the phantom's file says what it defines around them.

use std::error::Error;
use std::fmt::Write;
use std::path::Path;

/// One piece of a file.
enum Piece {
    /// A function, type or table: from the line that begins so, up to the first `}` or `};` in the first column.
    Block(&'static str),
    /// The same, but it ends before the line that begins so, with a `}` put there: what follows needs a GPU.
    BlockBefore(&'static str, &'static str),
    /// Every line that begins so (macros, with their continued lines; declarations of one line).
    Lines(&'static str),
    /// A declaration over several lines, up to the first line that ends with `;`.
    Statement(&'static str),
    /// All of the file, without what it includes.
    All,
}

use Piece::{All, Block, BlockBefore, Lines, Statement};

const CUDA: &[(&str, &[Piece])] = &[
    (
        "ggml/src/ggml-cuda/common.cuh",
        &[
            Lines("#define GGML_CUDA_CC_"),
            Lines("#define MATRIX_ROW_PADDING"),
            Block("static bool amd_mfma_available("),
            Block("static bool amd_wmma_available("),
            Block("static bool volta_mma_available("),
            Block("static bool turing_mma_available("),
        ],
    ),
    (
        "ggml/src/ggml-cuda/fattn-common.cuh",
        &[
            Lines("#define FATTN_KQ_STRIDE"),
            Block("struct ggml_cuda_flash_attn_ext_f16_extra_data {"),
            Block("static inline ggml_cuda_flash_attn_ext_f16_extra_data ggml_cuda_flash_attn_ext_get_f16_extra_data("),
        ],
    ),
    (
        "ggml/src/ggml-cuda/fattn-mma-f16.cuh",
        &[Block("static constexpr __host__ __device__ bool ggml_cuda_flash_attn_ext_mma_f16_may_use_sparse(")],
    ),
    (
        "ggml/src/ggml-cuda/fattn.cu",
        &[
            Block("bool ggml_cuda_flash_attn_ext_mma_f16_shall_use_sparse("),
            Lines("#define FATTN_VEC_CASE"),
            Lines("typedef void (* fattn_vec_case_t)"),
            Block("static fattn_vec_case_t ggml_cuda_get_fattn_vec_case("),
            Block("enum best_fattn_kernel {"),
            Block("static bool ggml_cuda_fattn_kv_type_supported("),
            Block("static best_fattn_kernel ggml_cuda_get_best_fattn_kernel("),
            Block("size_t ggml_cuda_flash_attn_ext_get_alloc_size("),
            Block("bool ggml_cuda_flash_attn_ext_supported("),
        ],
    ),
    ("ggml/src/ggml-cuda/fwht.cu", &[Block("bool ggml_cuda_op_mul_mat_use_fwht(")]),
    ("ggml/src/ggml-cuda/lightning-indexer.cu", &[Block("bool ggml_cuda_lightning_indexer_supported(")]),
    ("ggml/src/ggml-cuda/topk-moe.cuh", &[Block("struct ggml_cuda_topk_moe_args {")]),
    ("ggml/src/ggml-cuda/topk-moe.cu", &[Block("bool ggml_cuda_should_use_topk_moe(")]),
    (
        "ggml/src/ggml-cuda/ggml-cuda.cu",
        &[
            Block("static size_t ggml_backend_cuda_buffer_type_get_alloc_size("),
            Block("static bool ggml_cuda_should_fuse_mul_mat("),
            Block("static bool ggml_cuda_match_shared_expert("),
            Block("static bool ggml_cuda_topk_moe_fusion("),
            Lines("static constexpr int MOE_WEIGHTED_REDUCTION_MAX_EXPERTS"),
            Block("struct ggml_cuda_moe_weighted_reduction_match {"),
            Block("static bool ggml_cuda_match_moe_weighted_reduction("),
            // What follows runs only where GGML_CUDA_GRAPH_OPT=1 is set, and needs streams.
            BlockBefore("static void ggml_backend_cuda_graph_optimize(", "#ifdef USE_CUDA_GRAPH"),
            Block("static bool ggml_backend_cuda_device_supports_op("),
            Block("static bool ggml_backend_cuda_device_supports_buft("),
            Block("static int64_t get_op_batch_size("),
            Block("static bool ggml_backend_cuda_device_offload_op("),
        ],
    ),
];

const METAL: &[(&str, &[Piece])] = &[
    (
        "ggml/src/ggml-metal/ggml-metal-impl.h",
        &[
            Lines("#define OP_FLASH_ATTN_EXT_"),
            Lines("#define OP_LIGHTNING_INDEXER_"),
            Lines("#define N_MM_NPART_AMAX"),
        ],
    ),
    ("ggml/src/ggml-metal/ggml-metal-fusion.h", &[All]),
    ("ggml/src/ggml-metal/ggml-metal-common.h", &[All]),
    ("ggml/src/ggml-metal/ggml-metal-common.cpp", &[All]),
    ("ggml/src/ggml-metal/ggml-metal-fusion.cpp", &[All]),
    (
        "ggml/src/ggml-metal/ggml-metal-ops.cpp",
        &[
            Block("size_t ggml_metal_op_mul_mat_id_extra_tpe("),
            Block("size_t ggml_metal_op_mul_mat_id_extra_ids("),
            Block("size_t ggml_metal_op_mul_mat_id_extra_amax("),
            Block("bool ggml_metal_op_flash_attn_ext_use_vec("),
            Block("static bool ggml_metal_op_flash_attn_ext_use_kv_f16("),
            Block("static int ggml_metal_op_flash_attn_ext_n_kv_max_sparse("),
            Block("static bool ggml_metal_op_flash_attn_ext_v_is_view_of_k("),
            Block("static size_t ggml_metal_op_flash_attn_ext_kv_f16_k_size("),
            Block("size_t ggml_metal_op_flash_attn_ext_extra_pad("),
            Block("size_t ggml_metal_op_flash_attn_ext_extra_blk("),
            Block("size_t ggml_metal_op_flash_attn_ext_extra_tmp("),
            Block("size_t ggml_metal_op_flash_attn_ext_extra_kv_f16("),
            Block("size_t ggml_metal_op_flash_attn_ext_extra_idx("),
        ],
    ),
    (
        "ggml/src/ggml-metal/ggml-metal-device.m",
        &[Block("static bool ggml_metal_supports_mul_mat_op("), Block("bool ggml_metal_device_supports_op(")],
    ),
    (
        "ggml/src/ggml-metal/ggml-metal.cpp",
        &[
            Block("static size_t ggml_backend_metal_buffer_type_get_alloc_size("),
            Block("static int64_t get_op_batch_size("),
            Block("static bool ggml_backend_metal_device_offload_op("),
        ],
    ),
];

const VULKAN: &[(&str, &[Piece])] = &[
    (
        "ggml/src/ggml-vulkan/ggml-vulkan-types.h",
        &[
            Lines("static constexpr uint32_t num_argsort_pipelines"),
            Lines("static constexpr uint32_t num_topk_pipelines"),
            Statement("static constexpr std::initializer_list<ggml_op> "),
            Block("static constexpr std::array<ggml_type, 9> lightning_indexer_k_types = {"),
        ],
    ),
    (
        "ggml/src/ggml-vulkan/ggml-vulkan.cpp",
        &[
            Block("bool ggml_vk_lightning_indexer_k_type_supported("),
            Block("uint64_t vk_tensor_offset("),
            Block("bool ggml_vk_concat_supported("),
            Block("bool ggml_vk_dim01_contiguous("),
            Block("size_t ggml_backend_vk_buffer_type_get_alignment("),
            Block("size_t ggml_backend_vk_buffer_type_get_max_size("),
            Block("size_t ggml_backend_vk_buffer_type_get_alloc_size("),
            Block("static size_t ggml_backend_vk_host_buffer_type_get_alignment("),
            Block("static size_t ggml_backend_vk_host_buffer_type_get_max_size("),
            Block("int ggml_vk_unary_mul_op_index("),
            Block("static bool ggml_vk_can_fuse_unary_mul("),
            Block("void ggml_vk_graph_optimize("),
            Block("static bool ggml_backend_vk_device_supports_op("),
            Block("static bool ggml_backend_vk_device_supports_buft("),
        ],
    ),
    ("ggml/src/ggml-vulkan/ggml-vulkan-debug.cpp", &[Block("int64_t ggml_vk_get_op_batch_size(")]),
    ("ggml/src/ggml-vulkan/ggml-vulkan.cpp", &[Block("static bool ggml_backend_vk_device_offload_op(")]),
];

/// How tensors are spread over buffers, for every backend.
const BUFFERS: &[(&str, &[Piece])] = &[(
    "ggml/src/ggml-backend.cpp",
    &[
        Block("struct ggml_backend_buft_alloc_buffer_n_plan_item {"),
        Lines("using ggml_backend_buft_alloc_buffer_n_plan_t "),
        Block("static ggml_backend_buft_alloc_buffer_n_plan_t ggml_backend_buft_alloc_buffer_n_plan("),
    ],
)];

/// llama.cpp's fit, and how it measures one placement.
const FIT: &[(&str, &[Piece])] = &[(
    "common/fit.cpp",
    &[
        Block("enum common_layer_fraction_t {"),
        Block("class common_params_fit_exception "),
        Block("static void common_params_fit_impl("),
        Block("enum common_params_fit_status common_fit_params("),
    ],
)];
const FIT_MEASURE: &[(&str, &[Piece])] =
    &[("common/fit.cpp", &[Block("static std::vector<llama_device_memory_data> common_get_device_memory_data_impl(")])];

/// How the scheduler's graph gets its memory: what is allocated and freed, in which order, and what takes another's place.
/// Sizing profiles record it (`shim/trace.cpp`).
const ALLOCATION: &[(&str, &[Piece])] = &[
    ("ggml/src/ggml-backend.cpp", &[Lines("#define GGML_SCHED_MAX_"), Block("struct ggml_backend_sched {")]),
    (
        "ggml/src/ggml-alloc.c",
        &[
            Lines("#define AT_PRINTF"),
            Block("struct buffer_address {"),
            Block("static size_t aligned_offset("),
            Block("struct hash_node {"),
        ],
    ),
];
const ALLOCATION_ORDER: &[(&str, &[Piece])] = &[(
    "ggml/src/ggml-alloc.c",
    &[
        Block("static bool ggml_gallocr_is_own("),
        Block("static bool ggml_gallocr_is_allocated("),
        Block("static void ggml_gallocr_allocate_node("),
        Block("static void ggml_gallocr_free_node("),
        Block("static int get_node_buffer_id("),
        Block("static void ggml_gallocr_alloc_graph_impl("),
    ],
)];

/// Writes one `upstream_NAME.inc` for each entry of `all` below into `out`.
///
/// # Errors
/// Names the piece that `sources` (the folder `llama.cpp`) does not have.
pub fn cut(sources: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
    let all = [
        ("cuda", CUDA),
        ("metal", METAL),
        ("vulkan", VULKAN),
        ("buffers", BUFFERS),
        ("fit", FIT),
        ("fit_measure", FIT_MEASURE),
        ("allocation", ALLOCATION),
        ("allocation_order", ALLOCATION_ORDER),
    ];
    for (name, files) in all {
        let mut text = String::new();
        if name == "cuda" {
            flash_attention_instances(sources, &mut text)?;
        }
        for (file, pieces) in files {
            let path = sources.join(file);
            let source = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            let lines: Vec<&str> = source.lines().collect();
            for piece in *pieces {
                let found = find(&lines, piece).map_err(|what| {
                    format!("llama.cpp's {file} has no {what} any more: see engine/build/upstream.rs and the file of engine/shim that includes upstream_{name}.inc")
                })?;
                for (first, piece_lines) in found {
                    writeln!(text, "#line {} \"{file}\"", first + 1)?;
                    for line in piece_lines {
                        writeln!(text, "{line}")?;
                    }
                }
            }
        }
        std::fs::write(out.join(format!("upstream_{name}.inc")), text)?;
    }
    Ok(())
}

/// What the phantoms say in words of their own, because upstream's code for it calls its GPU: file, where it begins, and
/// what must stand there.
const MIRRORED: &[(&str, &str, &[&str])] = &[
    (CUDA_FILE, "static size_t ggml_backend_cuda_buffer_type_get_alignment(", &["return 128;"]),
    (CUDA_FILE, "static enum ggml_backend_dev_type ggml_backend_cuda_device_get_type(", &["return prop.integrated"]),
    (
        CUDA_FILE,
        "static void ggml_backend_cuda_device_get_props(",
        &[
            "/* .async                 = */ true,",
            "bool events = true;",
            "/* .buffer_from_host_ptr  = */ false,",
            "/* .mmap_support          = */ props->type != GGML_BACKEND_DEVICE_TYPE_IGPU,",
        ],
    ),
    (
        CUDA_FILE,
        "ggml_backend_buffer_type_t ggml_backend_cuda_host_buffer_type(",
        &["ggml_backend_cpu_buffer_type()->iface.get_alignment,", "/* .get_max_size        = */ NULL,"],
    ),
    (CUDA_FILE, "ggml_backend_reg_t ggml_backend_cuda_reg(", &[": 32;"]),
    (METAL_FILE, "static size_t ggml_backend_metal_buffer_type_shared_get_alignment(", &["return 32;"]),
    (METAL_FILE, "static enum ggml_backend_dev_type ggml_backend_metal_device_get_type(", &["_TYPE_GPU;"]),
    (
        METAL_FILE,
        "static void ggml_backend_metal_device_get_props(",
        &[
            "/* .async                = */ true,",
            "/* .host_buffer          = */ false,",
            "/* .buffer_from_host_ptr = */ true,",
            "/* .events               = */ true,",
        ],
    ),
    (
        METAL_FILE,
        "static void ggml_backend_metal_graph_optimize(",
        &["ggml_metal_fusion_add_alloc_deps(params->user_data, params->add_alloc_dep, cgraph);"],
    ),
    (
        VULKAN_FILE,
        "static void ggml_backend_vk_device_get_props(",
        &[
            "/* .async                 = */ true,",
            "/* .host_buffer           = */ true,",
            "/* .buffer_from_host_ptr  = */ false,",
            "/* .events                = */ true,",
            "/* .mmap_support          = */ !ctx->is_integrated_gpu,",
        ],
    ),
];

/// The same for lines that are in no function of their own kind.
const MIRRORED_LINES: &[(&str, &str)] = &[
    ("ggml/src/ggml-cuda/CMakeLists.txt", "CMAKE_CUDA_ARCHITECTURES 50-virtual 61-virtual 70-virtual)"),
    ("ggml/src/ggml-cuda/CMakeLists.txt", "CMAKE_CUDA_ARCHITECTURES 75-virtual 80-virtual 86-real)"),
    ("ggml/src/ggml-cuda/CMakeLists.txt", "CMAKE_CUDA_ARCHITECTURES 89-real 90-virtual)"),
    ("ggml/src/ggml-cuda/CMakeLists.txt", "CMAKE_CUDA_ARCHITECTURES 120a-real)"),
    ("ggml/src/ggml-cuda/CMakeLists.txt", "CMAKE_CUDA_ARCHITECTURES 121a-real)"),
    (CUDA_FILE, "info.devices[id].integrated = false;"),
    ("ggml/src/ggml-cuda/common.cuh", "CUDART_VERSION >= 11070)"),
    (METAL_DEVICE_FILE, "dev->props.has_simdgroup_reduction  = [dev->mtl_device supportsFamily:MTLGPUFamilyApple7];"),
    (METAL_DEVICE_FILE, "dev->props.has_simdgroup_mm = [dev->mtl_device supportsFamily:MTLGPUFamilyApple7];"),
    (METAL_DEVICE_FILE, "dev->props.has_bfloat |= [dev->mtl_device supportsFamily:MTLGPUFamilyApple6];"),
    (METAL_DEVICE_FILE, "dev->props.max_buffer_size            = dev->mtl_device.maxBufferLength;"),
    ("ggml/src/ggml-metal/ggml-metal.cpp", "#define GGML_METAL_NAME \"MTL\""),
    ("ggml/include/ggml-cuda.h", "#define GGML_CUDA_NAME \"ROCm\""),
    ("ggml/include/ggml-cuda.h", "#define GGML_CUDA_NAME \"CUDA\""),
];

const CUDA_FILE: &str = "ggml/src/ggml-cuda/ggml-cuda.cu";
const METAL_FILE: &str = "ggml/src/ggml-metal/ggml-metal.cpp";
const METAL_DEVICE_FILE: &str = "ggml/src/ggml-metal/ggml-metal-device.m";
const VULKAN_FILE: &str = "ggml/src/ggml-vulkan/ggml-vulkan.cpp";

/// Checks what the phantoms mirror.
///
/// # Errors
/// Names what upstream says otherwise now.
pub fn check_mirrored(sources: &Path) -> Result<(), Box<dyn Error>> {
    let read = |file: &str| std::fs::read_to_string(sources.join(file)).map_err(|error| format!("{file}: {error}"));
    for (file, start, texts) in MIRRORED {
        let source = read(file)?;
        let lines: Vec<&str> = source.lines().collect();
        let (first, last) =
            block(&lines, start).map_err(|what| format!("llama.cpp's {file} has no {what} any more"))?;
        for text in *texts {
            if !lines[first..=last].iter().any(|line| line.contains(text)) {
                return Err(
                    format!("llama.cpp's {file}: {start:?} no longer says {text:?}: see shim/phantom*.cpp").into()
                );
            }
        }
    }
    for (file, text) in MIRRORED_LINES {
        if !read(file)?.lines().any(|line| line.contains(text)) {
            return Err(format!("llama.cpp's {file} no longer says {text:?}: see shim/phantom*.cpp").into());
        }
    }
    Ok(())
}

/// Runs of lines with the index of their first.
type Found = Vec<(usize, Vec<String>)>;

fn find(lines: &[&str], piece: &Piece) -> Result<Found, String> {
    let owned = |range: &[&str]| range.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    match piece {
        Block(start) => {
            let (first, last) = block(lines, start)?;
            Ok(vec![(first, owned(&lines[first..=last]))])
        }
        BlockBefore(start, stop) => {
            let (first, last) = block(lines, start)?;
            let end =
                (first..=last).find(|index| lines[*index].starts_with(stop)).ok_or(format!("{stop:?} in {start:?}"))?;
            let mut text = owned(&lines[first..end]);
            text.push("}".to_owned());
            Ok(vec![(first, text)])
        }
        Lines(start) => {
            let mut found = Found::new();
            let mut index = 0;
            while index < lines.len() {
                let first = index;
                if lines[index].starts_with(start) {
                    while lines[index].trim_end().ends_with('\\') && index + 1 < lines.len() {
                        index += 1;
                    }
                    found.push((first, owned(&lines[first..=index])));
                }
                index += 1;
            }
            if found.is_empty() { Err(format!("{start:?}")) } else { Ok(found) }
        }
        Statement(start) => {
            let mut found = Found::new();
            for first in (0..lines.len()).filter(|index| lines[*index].starts_with(start)) {
                let last = (first..lines.len()).find(|index| lines[*index].trim_end().ends_with(';'));
                found.push((first, owned(&lines[first..=last.ok_or(format!("end of {start:?}"))?])));
            }
            if found.is_empty() { Err(format!("{start:?}")) } else { Ok(found) }
        }
        All => {
            let mut text = Vec::new();
            let mut linkage = false;
            for line in lines {
                match *line {
                    // In a namespace of ours these functions are others than a real backend's of the same name.
                    "#ifdef __cplusplus" => linkage = true,
                    "#endif" if linkage => linkage = false,
                    // Types that are ggml's, and so not of that namespace.
                    "struct ggml_tensor;" | "struct ggml_cgraph;" => {}
                    _ if linkage || line.starts_with("#include") || line.starts_with("#pragma once") => {}
                    _ => {
                        text.push((*line).to_owned());
                        continue;
                    }
                }
                text.push(String::new());
            }
            Ok(vec![(0, text)])
        }
    }
}

/// First and last line of a definition that begins so; declarations are passed over.
fn block(lines: &[&str], start: &str) -> Result<(usize, usize), String> {
    for first in (0..lines.len()).filter(|index| lines[*index].starts_with(start)) {
        let opening =
            (first..lines.len()).find(|index| lines[*index].contains('{') || lines[*index].trim_end().ends_with(';'));
        if !opening.is_some_and(|index| lines[index].contains('{')) {
            continue;
        }
        if let Some(last) = (first..lines.len()).find(|index| matches!(lines[*index], "}" | "};")) {
            return Ok((first, last));
        }
    }
    Err(format!("{start:?}"))
}

/// Which pairs of types CUDA's vector kernel of flash attention is compiled for, by the build's default.
fn flash_attention_instances(sources: &Path, text: &mut String) -> Result<(), Box<dyn Error>> {
    const TYPES: [&str; 7] = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "bf16", "f16"];
    let file = sources.join("ggml/CMakeLists.txt");
    let cmake = std::fs::read_to_string(&file)?;
    let chosen = cmake
        .lines()
        .find(|line| line.starts_with("set   (GGML_CUDA_FA_QUANTS"))
        .and_then(|line| line.split('"').nth(1))
        .ok_or("llama.cpp's ggml/CMakeLists.txt has no default of GGML_CUDA_FA_QUANTS any more")?;
    let compiled: Vec<&str> = std::iter::once("f16-f16").chain(chosen.split(';')).collect();
    for k in TYPES {
        for v in TYPES {
            let pair = format!("{k}-{v}");
            let name = format!("GGML_CUDA_FA_{k}_{v}").to_uppercase();
            writeln!(text, "#undef {name}\n#define {name} {}", u8::from(compiled.contains(&pair.as_str())))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "int declared(int a);\n#define A \\\n    1\n#define A2 2\nint declared(int a) {\n    if (a) {\n        \
                          return 1;\n    }\n#ifdef GPU\n    gpu();\n#endif\n}\nint other() {\n}\n";

    fn text(piece: &Piece) -> Result<String, String> {
        let lines: Vec<&str> = SOURCE.lines().collect();
        find(&lines, piece).map(|found| found.into_iter().flat_map(|(_, lines)| lines).collect::<Vec<_>>().join("|"))
    }

    #[test]
    fn a_definition_is_cut_out_whole_and_its_declaration_passed_over() {
        let whole = text(&Block("int declared(")).unwrap();
        assert!(whole.starts_with("int declared(int a) {|") && whole.ends_with("#endif|}"), "{whole}");
        let part = text(&BlockBefore("int declared(", "#ifdef GPU")).unwrap();
        assert!(part.ends_with("    }|}") && !part.contains("gpu"), "{part}");
        assert_eq!(text(&Lines("#define A")).unwrap(), "#define A \\|    1|#define A2 2");
    }

    #[test]
    fn what_is_gone_is_named() {
        assert!(text(&Block("int renamed(")).unwrap_err().contains("int renamed("));
        assert!(text(&BlockBefore("int declared(", "#ifdef CPU")).unwrap_err().contains("#ifdef CPU"));
        assert!(text(&Statement("static constexpr")).is_err());
        let nowhere = tempfile::tempdir().unwrap();
        let error = cut(nowhere.path(), nowhere.path()).unwrap_err().to_string();
        assert!(!error.is_empty());
        assert!(check_mirrored(nowhere.path()).unwrap_err().to_string().contains("ggml-cuda.cu"));
    }

    #[test]
    fn a_header_comes_without_includes_and_without_c_linkage() {
        let lines =
            ["#include <a>", "#ifdef __cplusplus", "extern \"C\" {", "#endif", "struct ggml_tensor;", "int f();"];
        let found = find(&lines, &All).unwrap();
        assert_eq!(found[0].1, ["", "", "", "", "", "int f();"]);
    }
}
