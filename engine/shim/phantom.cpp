// Phantom devices: ggml devices that report any amount of memory and never compute, so that llama.cpp's own dry run says
// what a model takes on a GPU that is not here.
//
// Owns: devices, registries, buffers, backends. What depends on the backend (sizes, operations, order of a graph) is
// upstream's own code, in phantom_cuda.cpp, phantom_rocm.cpp, phantom_vulkan.cpp and phantom_metal.cpp.
//
// Not in the figures, because llama.cpp counts none of it: a driver's context, a backend's pools for temporary results
// (engine/src/surcharge.rs). Not modelled: split buffers (rows of a tensor over several GPUs).

#include "phantom.h"

#include "error.h"
#include "phantom_device.h"

#include "ggml-impl.h"

#include <cstdio>
#include <cstring>
#include <deque>
#include <stdexcept>
#include <utility>

namespace {

#include "upstream_buffers.inc"

// One registry for each backend, because a backend is known by the name of its registry.
struct registry {
    const phantom_rules *    rules;
    ggml_backend_reg         reg;
    std::vector<phantom *>   devices;
    ggml_backend_buffer_type host;
};

std::deque<phantom>             phantoms; // addresses must stay
std::deque<registry>            registries;
std::vector<ggml_backend_dev_t> devices;

phantom * of(ggml_backend_buffer_type_t type) {
    return static_cast<phantom *>(type->context);
}

// Nothing is ever stored: any address that is not null and is aligned does.
void * const NOWHERE = reinterpret_cast<void *>(0x1000);

ggml_backend_buffer_t allocate(ggml_backend_buffer_type_t type, size_t size) {
    ggml_backend_buffer_i buffer = {};
    buffer.get_base              = [](ggml_backend_buffer_t) { return NOWHERE; };
    buffer.memset_tensor         = [](ggml_backend_buffer_t, ggml_tensor *, uint8_t, size_t, size_t) {};
    buffer.set_tensor            = [](ggml_backend_buffer_t, ggml_tensor *, const void *, size_t, size_t) {};
    buffer.get_tensor            = [](ggml_backend_buffer_t, const ggml_tensor *, void *, size_t, size_t) {};
    buffer.clear                 = [](ggml_backend_buffer_t, uint8_t) {};
    return ggml_backend_buffer_init(type, buffer, type->context, size);
}

// Pinned memory is main memory: what is really allocated in a dry run (a row of logits for each sequence) is the CPU's.
ggml_backend_buffer_t allocate_host(ggml_backend_buffer_type_t type, size_t size) {
    ggml_backend_buffer_t buffer = ggml_backend_buft_alloc_buffer(ggml_backend_cpu_buffer_type(), size);
    if (buffer) {
        buffer->buft = type;
    }
    return buffer;
}

// Graphs as earlier builds made and measured them, to compare with logs of theirs. What came since makes compute buffers
// larger: inputs for batches of tokens beside embeddings (llm_graph_context::build_inp_embd), which are left to the host
// here; and backends that reorder a graph, or keep tensors longer for fused operations (graph_optimize).
// engine/src/worker/earlier_build.rs says what the other two are.
ms_earlier earlier = {};

bool is_called(const ggml_tensor * tensor, const char * name) {
    return std::strstr(tensor->name, name) != nullptr;
}

// The mask of attention, or a device's copy of it.
bool is_f16_mask(const ggml_tensor * tensor) {
    return tensor->type == GGML_TYPE_F16 && is_called(tensor, "attn_inp_kq_mask");
}

// The device that has the first layers. What it makes of an input goes on to the others.
bool is_first(const phantom & device) {
    return &device.ggml == devices.front();
}

size_t alloc_size(ggml_backend_buffer_type_t type, const ggml_tensor * tensor) {
    const phantom & self = *of(type);
    if (earlier.copied_rows && (is_called(tensor, "attn_inp_k_idxs") || is_called(tensor, "attn_inp_v_idxs"))) {
        return self.rules->alignment(type); // not there at all; nothing is no size for ggml's allocator
    }
    if (earlier.f32_masks && is_first(self) && is_f16_mask(tensor)) {
        return ggml_nelements(tensor) * sizeof(float);
    }
    return self.rules->alloc_size(type, tensor);
}

// As if a mask in F32 were cast to F16 before the first attention: there the cast is given room, and the mask's is free
// again.
void cast_masks(ggml_cgraph * graph, ggml_backend_graph_optimize_params * params) {
    static ggml_context * casts = nullptr;
    for (int i = 0; i < graph->n_nodes; i++) {
        ggml_tensor * node = graph->nodes[i];
        ggml_tensor * mask = node->op == GGML_OP_FLASH_ATTN_EXT ? node->src[3] : nullptr;
        if (!mask || !is_f16_mask(mask)) {
            continue;
        }
        // The scheduler makes its copies anew for each graph, so that one with a cast is of this graph.
        auto * cast = static_cast<ggml_tensor *>(mask->extra);
        if (!cast) {
            if (!casts || ggml_get_mem_size(casts) - ggml_used_mem(casts) < 2 * ggml_tensor_overhead()) {
                casts = ggml_init({ 256 * ggml_tensor_overhead(), nullptr, true });
            }
            cast        = ggml_new_tensor(casts, GGML_TYPE_F16, GGML_MAX_DIMS, mask->ne);
            mask->extra = cast;
            ggml_set_name(cast, "kq_mask_cast");
            if (i > 0) {
                params->add_alloc_dep(params->user_data, mask, graph->nodes[i - 1]);
                params->add_alloc_dep(params->user_data, cast, graph->nodes[i - 1]);
            }
        }
        node->src[3] = cast;
    }
}

bool is_of_mixed_batch(const ggml_tensor * op) {
    for (const ggml_tensor * source : op->src) {
        const ggml_tensor * base   = source && source->view_src ? source->view_src : source;
        const ggml_tensor * origin = base ? base->src[0] : nullptr;
        for (const ggml_tensor * tensor : { source, base, origin }) {
            if (tensor && std::strncmp(tensor->name, "inp_mixed_", 10) == 0) {
                return true;
            }
        }
    }
    return false;
}

std::vector<ggml_backend_dev_t> layers;

// Whether llama.cpp pins it to another device (llama_context::graph_get_cb).
bool is_pinned_elsewhere(ggml_backend_dev_t device, const ggml_tensor * op) {
    size_t layer = 0;
    if (layers.empty() || (std::sscanf(op->name, "norm-%zu", &layer) != 1 && std::sscanf(op->name, "l_last-%zu", &layer) != 1)) {
        return false;
    }
    return layer < layers.size() && layers[layer] != device;
}

bool supports_op(ggml_backend_dev_t device, const ggml_tensor * op) {
    if (is_pinned_elsewhere(device, op)) {
        return false;
    }
    return !(earlier.graphs && is_of_mixed_batch(op)) && phantom_of(device)->rules->supports_op(device, op);
}

// A dry run asks for the sum of the buffers that tensors would be spread over.
size_t host_size(ggml_backend_buffer_type_t type, ggml_tensor ** tensors, int count) {
    size_t total = 0;
    for (const auto & buffer : ggml_backend_buft_alloc_buffer_n_plan(type, tensors, count)) {
        total += buffer.size + of(type)->rules->host_more;
    }
    return total;
}

void optimize(ggml_backend_t backend, ggml_cgraph * graph, ggml_backend_graph_optimize_params * params) {
    const phantom & self = *static_cast<phantom *>(backend->context);
    if (!earlier.graphs) {
        self.rules->graph_optimize(backend, graph, params);
    } else if (earlier.f32_masks && is_first(self)) {
        cast_masks(graph, params);
    }
}

ggml_backend_t start(ggml_backend_dev_t device, const char *) {
    static uint8_t guid[16]       = { 'm', 'u', 's', 't', 'e', 'r', '-', 'p', 'h', 'a', 'n', 't', 'o', 'm', 0, 1 };
    auto *         backend        = new ggml_backend();
    backend->guid                 = &guid;
    backend->device               = device;
    backend->context              = phantom_of(device);
    backend->iface.get_name       = [](ggml_backend_t backend) { return static_cast<phantom *>(backend->context)->name.c_str(); };
    backend->iface.free           = [](ggml_backend_t backend) { delete backend; };
    backend->iface.synchronize    = [](ggml_backend_t) {};
    backend->iface.graph_compute  = [](ggml_backend_t, ggml_cgraph *) { return GGML_STATUS_SUCCESS; };
    backend->iface.graph_optimize = optimize;
    return backend;
}

void fill(phantom & made, registry & home) {
    const phantom_rules & rules           = *made.rules;
    made.buffer_type                      = {};
    made.buffer_type.device               = &made.ggml;
    made.buffer_type.context              = &made;
    made.buffer_type.iface.get_name       = phantom_buffer_name;
    made.buffer_type.iface.alloc_buffer   = allocate;
    made.buffer_type.iface.get_alignment  = rules.alignment;
    made.buffer_type.iface.get_max_size   = rules.max_size;
    made.buffer_type.iface.get_alloc_size = alloc_size;

    made.ggml                   = {};
    made.ggml.context           = &made;
    made.ggml.reg               = &home.reg;
    ggml_backend_device_i & use = made.ggml.iface;
    use.get_name                = [](ggml_backend_dev_t device) { return phantom_of(device)->name.c_str(); };
    use.get_description         = [](ggml_backend_dev_t) { return "phantom"; };
    use.get_type                = [](ggml_backend_dev_t device) { return phantom_of(device)->rules->type(*phantom_of(device)); };
    use.get_memory              = [](ggml_backend_dev_t device, size_t * free, size_t * total) {
        *free  = phantom_of(device)->free;
        *total = phantom_of(device)->total;
    };
    use.get_props = [](ggml_backend_dev_t device, ggml_backend_dev_props * props) {
        const phantom & self = *phantom_of(device);
        *props               = {};
        props->name          = self.name.c_str();
        props->description   = "phantom";
        props->type          = self.rules->type(self);
        props->memory_free   = self.free;
        props->memory_total  = self.total;
        props->caps          = self.rules->caps(self);
    };
    use.init_backend    = start;
    use.get_buffer_type = [](ggml_backend_dev_t device) { return &phantom_of(device)->buffer_type; };
    if (rules.host_buffer) {
        use.get_host_buffer_type = [](ggml_backend_dev_t device) -> ggml_backend_buffer_type_t {
            return &static_cast<registry *>(device->reg->context)->host;
        };
    }
    use.supports_op   = supports_op;
    use.supports_buft = rules.supports_buft;
    use.offload_op    = rules.offload_op;
    use.event_new     = [](ggml_backend_dev_t device) -> ggml_backend_event_t {
        return new ggml_backend_event{ device, nullptr };
    };
    use.event_free        = [](ggml_backend_dev_t, ggml_backend_event_t event) { delete event; };
    use.event_synchronize = [](ggml_backend_dev_t, ggml_backend_event_t) {};
}

// One type of pinned memory for all devices of a backend; it belongs to the first of them.
void fill_host(registry & home) {
    const phantom_rules & rules = *home.rules;
    ggml_backend_buffer_type_t cpu = ggml_backend_cpu_buffer_type();
    home.host                      = {};
    home.host.device               = &home.devices.front()->ggml;
    home.host.context              = home.devices.front();
    home.host.iface.get_name       = phantom_host_buffer_name;
    home.host.iface.alloc_buffer   = allocate_host;
    home.host.iface.get_alignment  = rules.host_alignment ? rules.host_alignment : cpu->iface.get_alignment;
    home.host.iface.get_max_size   = rules.host_max_size;
    home.host.iface.get_alloc_size = cpu->iface.get_alloc_size;
    home.host.iface.get_alloc_size_n = host_size;
    home.host.iface.is_host        = cpu->iface.is_host;
}

registry & registry_of(const phantom_rules & rules) {
    for (registry & known : registries) {
        if (known.rules == &rules) {
            return known;
        }
    }
    registries.push_back({ &rules, {}, {}, {} });
    registry & made                 = registries.back();
    made.reg.api_version            = GGML_BACKEND_API_VERSION;
    made.reg.context                = &made;
    made.reg.iface.get_name         = [](ggml_backend_reg_t reg) { return static_cast<registry *>(reg->context)->rules->registry; };
    made.reg.iface.get_device_count = [](ggml_backend_reg_t reg) {
        return static_cast<registry *>(reg->context)->devices.size();
    };
    made.reg.iface.get_device = [](ggml_backend_reg_t reg, size_t index) {
        return &static_cast<registry *>(reg->context)->devices[index]->ggml;
    };
    made.reg.iface.get_proc_address = [](ggml_backend_reg_t, const char *) -> void * { return nullptr; };
    return made;
}

const phantom_rules & rules_of(int32_t backend) {
    switch (backend) {
        case 0: return phantom_cuda;
        case 1: return phantom_vulkan;
        case 2: return phantom_metal;
        case 3: return phantom_rocm;
    }
    throw std::runtime_error("a phantom of an unknown backend");
}

} // namespace

const char * phantom_buffer_name(ggml_backend_buffer_type_t type) {
    return of(type)->name.c_str();
}

const char * phantom_host_buffer_name(ggml_backend_buffer_type_t type) {
    return of(type)->rules->host_buffer;
}

const std::vector<ggml_backend_dev_t> & ms_phantom_devices() {
    return devices;
}

void ms_phantoms_place_layers(std::vector<ggml_backend_dev_t> placed) {
    layers = std::move(placed);
}

size_t ms_phantom_allocated(ggml_backend_buffer_type_t type, size_t size) {
    if (size == 0 || type->iface.get_name != phantom_host_buffer_name) {
        return size;
    }
    // A compute buffer is one, unless it is larger than one can be; then it is at least so many.
    const size_t largest = ggml_backend_buft_get_max_size(type);
    return size + (1 + (size - 1) / largest) * of(type)->rules->host_more;
}

bool ms_phantoms_register(const ms_phantom * wanted, size_t count, const ms_earlier * as_earlier, ms_error * error) {
    return ms_guard(error, false, [&] {
        if (!phantoms.empty()) {
            throw std::runtime_error("phantom devices are registered already");
        }
        if (count > MS_MAX_DEVICES) {
            throw std::runtime_error("more than " + std::to_string(MS_MAX_DEVICES) + " devices");
        }
        earlier = *as_earlier;
        for (size_t i = 0; i < count; i++) {
            const phantom_rules & rules = rules_of(wanted[i].backend);
            registry &            home  = registry_of(rules);
            phantoms.emplace_back();
            phantom & made                 = phantoms.back();
            made.name                      = wanted[i].name;
            made.rules                     = &rules;
            made.device                    = (int) home.devices.size();
            made.total                     = wanted[i].total;
            made.free                      = wanted[i].free;
            made.capability                = wanted[i].capability ? wanted[i].capability : rules.capability;
            made.integrated                = wanted[i].integrated;
            made.op_offload_min_batch_size = 32;
            rules.add(made);
            fill(made, home);
            home.devices.push_back(&made);
            devices.push_back(&made.ggml);
        }
        for (registry & made : registries) {
            if (made.rules->host_buffer) {
                fill_host(made);
            }
            ggml_backend_register(&made.reg);
        }
        return true;
    });
}
