// Phantom GPUs under Vulkan, of any vendor.
//
// Upstream's own, from upstream_vulkan.inc (build/upstream.rs):
//   sizes       ggml_backend_vk_buffer_type_get_alignment, …_get_max_size, …_get_alloc_size (no padding, no scratch)
//   operations  ggml_backend_vk_device_supports_op, …_supports_buft, …_offload_op
//   order       ggml_vk_graph_optimize
// What is here stands in for a device: the limits and features that these functions read, which upstream's
// ggml_vk_get_device asks of the driver. The capability of a phantom is its vendor (VkPhysicalDeviceProperties::vendorID).

#include "phantom_device.h"

#include "ggml-impl.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <deque>
#include <initializer_list>
#include <set>
#include <string>
#include <vector>

namespace {

#define VK_LOG_DEBUG(message)
#define UNUSED GGML_UNUSED

constexpr uint32_t NVIDIA = 0x10DE;
constexpr uint32_t AMD    = 0x1002;
constexpr uint32_t INTEL  = 0x8086;
constexpr uint32_t MESA   = 0x10005; // software

struct vk_limits {
    size_t minStorageBufferOffsetAlignment;
    size_t minMemoryMapAlignment;
    size_t maxStorageBufferRange;
    size_t maxComputeSharedMemorySize;
};

struct vk_properties {
    vk_limits limits;
};

// Only asked whether it is there.
using vk_pipeline = const char *;

struct vk_device_struct {
    vk_properties properties;
    size_t        idx;
    uint64_t      max_buffer_size;
    uint64_t      suballocation_block_size;
    bool          disable_graph_optimize;
    bool          fp16;
    bool          coopmat2;
    bool          shader_int64;
    bool          buffer_device_address;
    bool          shader_64b_indexing;
    bool          subgroup_basic;
    bool          subgroup_arithmetic;
    bool          subgroup_require_full_support;
    bool          subgroup_shuffle;
    bool          subgroup_vote;
    bool          vulkan_memory_model;
    uint32_t      subgroup_size_log2;
    uint32_t      max_workgroup_size_log2;
    bool          mul_mat_id_s[GGML_TYPE_COUNT];
    bool          mul_mat_id_m[GGML_TYPE_COUNT];
    bool          mul_mat_id_l[GGML_TYPE_COUNT];
    vk_pipeline   pipeline_topk_f32[16];
    vk_pipeline   pipeline_topk_radix_f32;
    vk_pipeline   pipeline_dsv4_hc_comb_f32;
};

using vk_device = vk_device_struct *;

std::deque<vk_device_struct> DEVICES;

struct vk_instance_struct {
    std::vector<vk_device> devices;
};

vk_instance_struct vk_instance;

const vk_device & ggml_vk_get_device(size_t index) {
    return vk_instance.devices[index];
}

// Upstream's contexts, each made around a phantom where upstream's function asks for it.
struct vk_context {
    vk_device device;
};

struct vk_numbered {
    size_t device;
    int    op_offload_min_batch_size;
};

using ggml_backend_vk_context             = vk_context;
using ggml_backend_vk_buffer_type_context = vk_context;
using ggml_backend_vk_device_context      = vk_numbered;

const auto ggml_backend_vk_buffer_type_name = phantom_buffer_name;

void * const vk_ptr_base = (void *) (uintptr_t) 0x1000;

#include "upstream_vulkan.inc"

vk_device device_of(const void * context) {
    return vk_instance.devices[static_cast<const phantom *>(context)->device];
}

struct type_as_upstream : ggml_backend_buffer_type {
    vk_context own;

    explicit type_as_upstream(ggml_backend_buffer_type_t type) : ggml_backend_buffer_type(*type) {
        own     = { device_of(type->context) };
        context = &own;
    }
};

struct device_as_upstream : ggml_backend_device {
    vk_numbered own;

    explicit device_as_upstream(ggml_backend_dev_t device) : ggml_backend_device(*device) {
        own     = { (size_t) phantom_of(device)->device, phantom_of(device)->op_offload_min_batch_size };
        context = &own;
    }
};

// What drivers say, by vendor (ggml_vk_get_device); all four are drivers of Mesa but NVIDIA's.
vk_limits limits_of(uint32_t vendor) {
    constexpr size_t GIB4 = (size_t) UINT32_MAX;
    switch (vendor) {
        case NVIDIA: return { 16, 64, GIB4, 48 * 1024 };
        case INTEL:  return { 4, 4096, GIB4, 64 * 1024 };
        case MESA:   return { 16, 64, (size_t) 128 << 20, 32 * 1024 };
        default:     return { 4, 4096, GIB4, 64 * 1024 };
    }
}

void add(phantom & device) {
    vk_device_struct made         = {};
    made.properties.limits        = limits_of(device.capability);
    made.idx                      = (size_t) device.device;
    made.max_buffer_size          = made.properties.limits.maxStorageBufferRange;
    made.suballocation_block_size = std::min<uint64_t>((uint64_t) 1 << 30, made.max_buffer_size);
    made.fp16                     = true;
    // Tensors over 4 GiB: where the driver has VK_EXT_shader_64bit_indexing, they stay on the GPU.
    made.shader_64b_indexing           = device.capability != MESA;
    made.shader_int64                  = true;
    made.buffer_device_address         = true;
    made.subgroup_basic                = true;
    made.subgroup_arithmetic           = true;
    made.subgroup_require_full_support = device.capability != MESA;
    made.subgroup_shuffle              = true;
    made.subgroup_vote                 = true;
    made.vulkan_memory_model           = true;
    made.subgroup_size_log2            = device.capability == MESA ? 3 : 5;
    made.max_workgroup_size_log2       = 10;
    for (int type = 0; type < GGML_TYPE_COUNT; type++) {
        made.mul_mat_id_s[type] = made.mul_mat_id_m[type] = made.mul_mat_id_l[type] = true;
    }
    for (vk_pipeline & pipeline : made.pipeline_topk_f32) {
        pipeline = "there";
    }
    made.pipeline_topk_radix_f32   = "there";
    made.pipeline_dsv4_hc_comb_f32 = "there";
    if (made.shader_64b_indexing) {
        made.max_buffer_size = device.total;
    }
    DEVICES.push_back(made);
    vk_instance.devices.push_back(&DEVICES.back());
}

} // namespace

const phantom_rules phantom_vulkan = {
    /* .registry       = */ "Vulkan",
    /* .host_buffer    = */ "Vulkan_Host",
    /* .capability     = */ AMD,
    /* .caps           = */ [](const phantom & device) -> ggml_backend_dev_caps {
        return { true, true, false, true, !device.integrated };
    },
    /* .type           = */ [](const phantom & device) {
        return device.integrated ? GGML_BACKEND_DEVICE_TYPE_IGPU : GGML_BACKEND_DEVICE_TYPE_GPU;
    },
    /* .add            = */ add,
    /* .alignment      = */ [](ggml_backend_buffer_type_t type) {
        type_as_upstream upstream(type);
        return ggml_backend_vk_buffer_type_get_alignment(&upstream);
    },
    /* .max_size       = */ [](ggml_backend_buffer_type_t type) {
        type_as_upstream upstream(type);
        return ggml_backend_vk_buffer_type_get_max_size(&upstream);
    },
    /* .alloc_size     = */ ggml_backend_vk_buffer_type_get_alloc_size,
    /* .host_alignment = */ ggml_backend_vk_host_buffer_type_get_alignment,
    /* .host_max_size  = */ ggml_backend_vk_host_buffer_type_get_max_size,
    /* .supports_op    = */ [](ggml_backend_dev_t device, const ggml_tensor * op) {
        device_as_upstream upstream(device);
        return ggml_backend_vk_device_supports_op(&upstream, op);
    },
    /* .supports_buft  = */ [](ggml_backend_dev_t device, ggml_backend_buffer_type_t type) {
        if (!phantom_is_memory_of(type, phantom_vulkan)) {
            return false;
        }
        device_as_upstream upstream(device);
        type_as_upstream   upstream_type(type);
        return ggml_backend_vk_device_supports_buft(&upstream, &upstream_type);
    },
    /* .offload_op     = */ [](ggml_backend_dev_t device, const ggml_tensor * op) {
        device_as_upstream upstream(device);
        return ggml_backend_vk_device_offload_op(&upstream, op);
    },
    /* .graph_optimize = */ [](ggml_backend_t backend, ggml_cgraph * graph, ggml_backend_graph_optimize_params * params) {
        ggml_backend upstream = *backend;
        vk_context   context  = { device_of(backend->context) };
        upstream.context      = &context;
        ggml_vk_graph_optimize(&upstream, graph, params);
    },
};
