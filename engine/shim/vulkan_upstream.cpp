// Compiles the functions with which llama.cpp's Vulkan backend decides, cut from its source by the build script, against
// stand-ins for the device that they ask. So a phantom follows upstream's rules because it runs them.
//
// Everything lies in a namespace of its own: a build with the real backend has the same names.

#include "vulkan_upstream.h"

#include "ggml-impl.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <initializer_list>
#include <set>
#include <vector>

#define UNUSED GGML_UNUSED
#define VK_LOG_DEBUG(text) ((void) 0)

namespace {

struct vk_device_limits {
    uint64_t maxStorageBufferRange;
    uint64_t minStorageBufferOffsetAlignment;
    uint32_t maxComputeSharedMemorySize;
};

// Some size of matrix product fits into 32 KiB of shared memory, which every device has that the backend accepts.
struct yes {
    bool operator[](int) const { return true; }
};

struct vk_device_struct {
    struct {
        vk_device_limits limits;
    } properties;
    uint64_t     max_buffer_size;
    uint32_t     max_workgroup_size_log2;
    uint32_t     subgroup_size;
    uint32_t     subgroup_size_log2;
    bool         subgroup_basic, subgroup_arithmetic, subgroup_shuffle, subgroup_vote, subgroup_ballot;
    bool         subgroup_require_full_support;
    bool         fp16, coopmat2, vulkan_memory_model, shader_64b_indexing;
    bool         shader_int64, buffer_device_address;
    bool         disable_graph_optimize;
    yes          mul_mat_id_s, mul_mat_id_m, mul_mat_id_l;
    bool         pipeline_topk_f32[64];
    const void * pipeline_topk_radix_f32;
    const void * pipeline_dsv4_hc_comb_f32;
};
using vk_device = const vk_device_struct *;

struct ggml_backend_vk_device_context {
    vk_device device;
};
struct ggml_backend_vk_context {
    vk_device device;
};
vk_device ggml_vk_get_device(vk_device device) {
    return device;
}

#include "upstream_vulkan.inc"

// Stands for a pipeline that the device could compile.
constexpr char PRESENT = 0;

// As ggml_vk_get_device and ggml_vk_load_shaders fill the real one (ggml-vulkan.cpp).
vk_device_struct stand_in(const ms_vulkan_limits & limits) {
    vk_device_struct made                                        = {};
    made.properties.limits.maxStorageBufferRange                 = limits.max_storage_range;
    made.properties.limits.minStorageBufferOffsetAlignment       = limits.alignment;
    made.properties.limits.maxComputeSharedMemorySize            = limits.shared_memory;
    made.max_buffer_size                                         = limits.max_buffer;
    made.max_workgroup_size_log2                                 = (uint32_t) log2f((float) limits.max_workgroup);
    made.subgroup_size                                           = limits.subgroup;
    made.subgroup_size_log2                                      = (uint32_t) log2f((float) limits.subgroup);
    made.subgroup_basic                                          = true;
    made.subgroup_arithmetic                                     = true;
    made.subgroup_ballot                                         = true;
    made.subgroup_shuffle                                        = limits.subgroup_shuffle;
    made.subgroup_vote                                           = limits.subgroup_shuffle;
    made.subgroup_require_full_support                           = limits.full_subgroups;
    made.fp16                                                    = limits.fp16;
    made.vulkan_memory_model                                     = limits.memory_model;
    for (uint32_t i = 0; i < num_topk_pipelines && i <= made.max_workgroup_size_log2; i++) {
        made.pipeline_topk_f32[i] = 2 * sizeof(int) * (1u << i) <= limits.shared_memory;
    }
    made.pipeline_topk_radix_f32 = &PRESENT;
    if (made.subgroup_shuffle && made.subgroup_require_full_support && made.subgroup_size >= 16) {
        made.pipeline_dsv4_hc_comb_f32 = &PRESENT;
    }
    return made;
}

} // namespace

bool ms_vulkan_supports_op(const ms_vulkan_limits & limits, const ggml_tensor * op) {
    const vk_device_struct         device  = stand_in(limits);
    ggml_backend_vk_device_context context = { &device };
    ggml_backend_device            asked   = {};
    asked.context                          = &context;
    return ggml_backend_vk_device_supports_op(&asked, op);
}

bool ms_vulkan_offload_op(const ggml_tensor * op) {
    constexpr int64_t LEAST = 32; // what GGML_OP_OFFLOAD_MIN_BATCH is unless somebody sets it
    return ggml_vk_get_op_batch_size(op) >= LEAST;
}

void ms_vulkan_graph_optimize(ggml_cgraph * graph, ggml_backend_graph_optimize_params * params) {
    const vk_device_struct  device  = {};
    ggml_backend_vk_context context = { &device };
    ggml_backend            asked   = {};
    asked.context                   = &context;
    ggml_vk_graph_optimize(&asked, graph, params);
}

size_t ms_vulkan_block(const ms_vulkan_limits & limits) {
    constexpr uint64_t LARGEST = 1024 * 1024 * 1024; // "to avoid fragmentation issues"
    return (size_t) std::min(LARGEST, limits.max_allocation);
}
