// What the phantom devices have in common, and what each backend says of its own (phantom_cuda.cpp and its siblings).
#pragma once

#include "ggml-backend-impl.h"

#include <string>

struct phantom_rules;

// One device that reports memory and never computes. It is also the context of its ggml device and of its buffer types,
// which is how upstream's functions (build/upstream.rs) find it.
struct phantom {
    std::string              name;
    const phantom_rules *    rules;
    int                      device; // its number among those of its backend
    size_t                   total;
    size_t                   free;
    uint32_t                 capability; // never 0: the backend's default was put in
    bool                     integrated;
    int                      op_offload_min_batch_size; // GGML_OP_OFFLOAD_MIN_BATCH's default
    ggml_backend_buffer_type buffer_type;
    ggml_backend_device      ggml;
};

// A backend's answers. What they are is upstream's; each file names the functions.
struct phantom_rules {
    const char * registry;
    const char * host_buffer; // name of its type of pinned host memory; null where it has none
    uint32_t     capability;  // a common generation, for a phantom that does not say its own

    ggml_backend_dev_caps (*caps)(const phantom & device);
    enum ggml_backend_dev_type (*type)(const phantom & device);
    // Called once for each device, in the order of their numbers.
    void (*add)(phantom & device);

    size_t (*alignment)(ggml_backend_buffer_type_t type);
    size_t (*max_size)(ggml_backend_buffer_type_t type); // null for no limit
    size_t (*alloc_size)(ggml_backend_buffer_type_t type, const ggml_tensor * tensor);
    size_t (*host_alignment)(ggml_backend_buffer_type_t type); // null for the CPU's
    size_t (*host_max_size)(ggml_backend_buffer_type_t type);  // null for no limit

    bool (*supports_op)(ggml_backend_dev_t device, const ggml_tensor * op);
    bool (*supports_buft)(ggml_backend_dev_t device, ggml_backend_buffer_type_t type);
    bool (*offload_op)(ggml_backend_dev_t device, const ggml_tensor * op);
    // Reorders the nodes and keeps tensors longer, both of which change what a graph takes. `backend->context` is the
    // phantom.
    void (*graph_optimize)(ggml_backend_t backend, ggml_cgraph * graph, ggml_backend_graph_optimize_params * params);
};

extern const phantom_rules phantom_cuda;
extern const phantom_rules phantom_rocm;
extern const phantom_rules phantom_vulkan;
extern const phantom_rules phantom_metal;

inline phantom * phantom_of(ggml_backend_dev_t device) {
    return static_cast<phantom *>(device->context);
}

// The names of buffer types, by which they are recognized, as upstream recognizes its own.
const char * phantom_buffer_name(ggml_backend_buffer_type_t type);
const char * phantom_host_buffer_name(ggml_backend_buffer_type_t type);

// Whether it is memory of a device of these rules.
inline bool phantom_is_memory_of(ggml_backend_buffer_type_t type, const phantom_rules & rules) {
    return type->iface.get_name == phantom_buffer_name && static_cast<phantom *>(type->context)->rules == &rules;
}
