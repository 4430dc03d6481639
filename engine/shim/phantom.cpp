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

#include <deque>
#include <stdexcept>

namespace {

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

void optimize(ggml_backend_t backend, ggml_cgraph * graph, ggml_backend_graph_optimize_params * params) {
    static_cast<phantom *>(backend->context)->rules->graph_optimize(backend, graph, params);
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
    backend->iface.graph_optimize = phantom_of(device)->rules->graph_optimize ? optimize : nullptr;
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
    made.buffer_type.iface.get_alloc_size = rules.alloc_size;

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
    use.supports_op   = rules.supports_op;
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

bool ms_phantoms_register(const ms_phantom * wanted, size_t count, ms_error * error) {
    return ms_guard(error, false, [&] {
        if (!phantoms.empty()) {
            throw std::runtime_error("phantom devices are registered already");
        }
        if (count > MS_MAX_DEVICES) {
            throw std::runtime_error("more than " + std::to_string(MS_MAX_DEVICES) + " devices");
        }
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
