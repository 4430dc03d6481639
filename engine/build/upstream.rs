//! Cuts out of llama.cpp's own sources the functions that say how a GPU backend sizes and places: what a buffer of a
//! tensor takes, which operations it does, what it moves to itself, how it reorders a graph before memory is given out.
//!
//! The phantom devices (`shim/phantom*.cpp`) are compiled around these texts, so their rules are upstream's, by
//! construction, of the very version that is linked; none of them is written a second time. The rest of a backend's
//! source needs its GPU's toolchain and is left where it is. A piece that upstream moved or renamed fails the build with
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

/// Writes `upstream_cuda.inc`, `upstream_metal.inc` and `upstream_vulkan.inc` into `out`.
///
/// # Errors
/// Names the piece that `sources` (the folder `llama.cpp`) does not have.
pub fn cut(sources: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
    for (name, files) in [("cuda", CUDA), ("metal", METAL), ("vulkan", VULKAN)] {
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
                    format!("llama.cpp's {file} has no {what} any more: see engine/build/upstream.rs and shim/phantom_{name}.cpp")
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
