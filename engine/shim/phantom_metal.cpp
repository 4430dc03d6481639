// Phantom Apple GPUs: llama.cpp's Metal backend.
//
// Upstream's own, from upstream_metal.inc (build/upstream.rs):
//   sizes       ggml_backend_metal_buffer_type_get_alloc_size with the ggml_metal_op_*_extra_* of ggml-metal-ops.cpp: scratch
//               of flash attention, of products with experts, of sorts
//   operations  ggml_metal_device_supports_op, ggml_backend_metal_device_offload_op
//   order       ggml_metal_fusion_add_alloc_deps, ggml_graph_optimize (reorders for concurrency)
// What is here stands in for the device, and mirrors what only calls Metal: what a family has (ggml_metal_device_init), the
// alignment of 32 bytes, caps and type (ggml_backend_metal_device_get_props, …_get_type: always a GPU), no pinned memory.

#include "phantom_device.h"

#include "ggml-impl.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <set>
#include <string>
#include <vector>

namespace {

struct ggml_metal_device_props {
    bool   has_simdgroup_mm;
    bool   has_simdgroup_reduction;
    bool   has_bfloat;
    size_t max_buffer_size;
    size_t max_theadgroup_memory_size;
    int    op_offload_min_batch_size;
};

struct metal_device {
    ggml_metal_device_props props;
};

using ggml_metal_device_t = metal_device *;

// Only asked for buffers that are allocated, which no graph of a dry run is.
struct ggml_metal_buffer_id {
    void * metal;
    size_t offs;
};

using ggml_metal_buffer_t = void *;

ggml_metal_buffer_id ggml_metal_buffer_get_id(ggml_metal_buffer_t buffer, const ggml_tensor * tensor) {
    return { buffer, (size_t) tensor->data };
}

const ggml_metal_device_props * ggml_metal_device_get_props(ggml_metal_device_t device) {
    return &device->props;
}

#include "upstream_metal.inc"

std::vector<metal_device> DEVICES;

metal_device * device_of(const phantom & device) {
    return &DEVICES[device.device];
}

// Upstream's takes the Metal device for the context of the ggml device; this puts it there while it runs.
struct as_upstream : ggml_backend_device {
    explicit as_upstream(ggml_backend_dev_t device) : ggml_backend_device(*device) {
        context = device_of(*phantom_of(device));
    }
};

} // namespace

const phantom_rules phantom_metal = {
    /* .registry       = */ "MTL",
    /* .host_buffer    = */ nullptr,
    /* .capability     = */ 9, // Apple9: M3 and M4
    /* .caps           = */ [](const phantom &) -> ggml_backend_dev_caps { return { true, false, true, true, true }; },
    /* .type           = */ [](const phantom &) { return GGML_BACKEND_DEVICE_TYPE_GPU; },
    /* .add            = */ [](phantom & device) {
        ggml_metal_device_props props   = {};
        props.has_simdgroup_mm           = device.capability >= 7; // M1 is Apple7
        props.has_simdgroup_reduction    = device.capability >= 7;
        props.has_bfloat                 = device.capability >= 6;
        props.max_buffer_size            = device.total; // maxBufferLength: at least 3/4 of what the GPU may take; not known better
        props.max_theadgroup_memory_size = 32 * 1024;
        props.op_offload_min_batch_size  = device.op_offload_min_batch_size;
        DEVICES.push_back({ props });
    },
    /* .alignment      = */ [](ggml_backend_buffer_type_t) -> size_t { return 32; },
    /* .max_size       = */ [](ggml_backend_buffer_type_t type) {
        return device_of(*static_cast<phantom *>(type->context))->props.max_buffer_size;
    },
    /* .alloc_size     = */ ggml_backend_metal_buffer_type_get_alloc_size,
    /* .host_alignment = */ nullptr,
    /* .host_max_size  = */ nullptr,
    /* .supports_op    = */ [](ggml_backend_dev_t device, const ggml_tensor * op) {
        return ggml_metal_device_supports_op(device_of(*phantom_of(device)), op);
    },
    /* .supports_buft  = */ [](ggml_backend_dev_t device, ggml_backend_buffer_type_t type) {
        return type->device == device && phantom_is_memory_of(type, phantom_metal);
    },
    /* .offload_op     = */ [](ggml_backend_dev_t device, const ggml_tensor * op) {
        as_upstream upstream(device);
        return ggml_backend_metal_device_offload_op(&upstream, op);
    },
    /* .graph_optimize = */ [](ggml_backend_t, ggml_cgraph * graph, ggml_backend_graph_optimize_params * params) {
        ggml_metal_fusion_add_alloc_deps(params->user_data, params->add_alloc_dep, graph);
        ggml_graph_optimize(graph);
    },
};
