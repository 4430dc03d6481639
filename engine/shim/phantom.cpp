// Phantom devices: ggml devices that report any amount of memory and never compute, so that llama.cpp's own dry run says
// what a model takes on a GPU that is not here.
//
// Not modelled yet, and so the figures of real GPUs differ where it matters:
// - scratch that a backend asks for per operation (`get_alloc_size` of a result): CUDA's F16 copies of a quantized KV cache
//   under flash attention, Metal's scratch of flash attention, matrix products and sorts. Missing: compute is too low there;
// - operations that a backend cannot do: `supports_op` says yes to all, so nothing falls back to the host, and flash
//   attention is always found possible;
// - a backend's own pools and context (CUDA's is some hundred MB), which llama.cpp's dry run does not count at all;
// - pinned host buffers, split buffers (rows over several GPUs), integrated GPUs, and the largest single buffer of Vulkan
//   and Metal: all phantoms are discrete, with one plain buffer type of 128-byte alignment and no size limit.

#include "phantom.h"

#include "error.h"

#include "ggml-backend-impl.h"

#include <deque>
#include <stdexcept>

namespace {

enum class family { cuda, vulkan, metal, rocm };

struct phantom {
    std::string              name;
    family                   kind;
    size_t                   total;
    size_t                   free;
    ggml_backend_buffer_type buffer_type;
    ggml_backend_device      device;
};

// One registry for each family, because a backend is known by the name of its registry.
struct registry {
    const char *           name;
    ggml_backend_reg       reg;
    std::vector<phantom *> devices;
};

std::deque<phantom>             phantoms; // addresses must stay
std::deque<registry>            registries;
std::vector<ggml_backend_dev_t> devices;

phantom * of(ggml_backend_dev_t device) {
    return static_cast<phantom *>(device->context);
}

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

// CUDA pads rows of quantized tensors to the next 512 columns (MATRIX_ROW_PADDING in ggml-cuda), so that kernels may read
// past the end.
size_t padded_size(ggml_backend_buffer_type_t type, const ggml_tensor * tensor) {
    constexpr int64_t ROW_PADDING = 512;
    size_t            size        = ggml_nbytes(tensor);
    if ((of(type)->kind == family::cuda || of(type)->kind == family::rocm) && ggml_is_quantized(tensor->type) && tensor->ne[0] % ROW_PADDING != 0) {
        size += ggml_row_size(tensor->type, ROW_PADDING - tensor->ne[0] % ROW_PADDING);
    }
    return size;
}

ggml_backend_t start(ggml_backend_dev_t device, const char *) {
    static uint8_t guid[16]   = { 'm', 'u', 's', 't', 'e', 'r', '-', 'p', 'h', 'a', 'n', 't', 'o', 'm', 0, 1 };
    auto *         backend    = new ggml_backend();
    backend->guid             = &guid;
    backend->device           = device;
    backend->iface.get_name   = [](ggml_backend_t) { return "phantom"; };
    backend->iface.free       = [](ggml_backend_t backend) { delete backend; };
    backend->iface.synchronize = [](ggml_backend_t) {};
    backend->iface.graph_compute = [](ggml_backend_t, ggml_cgraph *) { return GGML_STATUS_SUCCESS; };
    return backend;
}

void fill(phantom & made, ggml_backend_reg * reg) {
    made.buffer_type                      = {};
    made.buffer_type.device               = &made.device;
    made.buffer_type.context              = &made;
    made.buffer_type.iface.get_name       = [](ggml_backend_buffer_type_t type) { return of(type)->name.c_str(); };
    made.buffer_type.iface.alloc_buffer   = allocate;
    made.buffer_type.iface.get_alignment  = [](ggml_backend_buffer_type_t) -> size_t { return 128; };
    made.buffer_type.iface.get_alloc_size = padded_size;

    made.device                 = {};
    made.device.context         = &made;
    made.device.reg             = reg;
    ggml_backend_device_i & use = made.device.iface;
    use.get_name                = [](ggml_backend_dev_t device) { return of(device)->name.c_str(); };
    use.get_description         = [](ggml_backend_dev_t) { return "phantom"; };
    use.get_type                = [](ggml_backend_dev_t) { return GGML_BACKEND_DEVICE_TYPE_GPU; };
    use.get_memory              = [](ggml_backend_dev_t device, size_t * free, size_t * total) {
        *free  = of(device)->free;
        *total = of(device)->total;
    };
    use.get_props = [](ggml_backend_dev_t device, ggml_backend_dev_props * props) {
        *props              = {};
        props->name         = of(device)->name.c_str();
        props->description  = "phantom";
        props->type         = GGML_BACKEND_DEVICE_TYPE_GPU;
        props->memory_free  = of(device)->free;
        props->memory_total = of(device)->total;
        // Asynchronous with events, so that the scheduler reserves what it reserves for real GPUs.
        props->caps.async  = true;
        props->caps.events = true;
    };
    use.init_backend    = start;
    use.get_buffer_type = [](ggml_backend_dev_t device) { return &of(device)->buffer_type; };
    use.supports_op     = [](ggml_backend_dev_t, const ggml_tensor *) { return true; };
    use.supports_buft   = [](ggml_backend_dev_t device, ggml_backend_buffer_type_t type) {
        return type == &of(device)->buffer_type;
    };
    // As CUDA does: worth moving from 32 rows on.
    use.offload_op = [](ggml_backend_dev_t, const ggml_tensor * op) {
        return op->op != GGML_OP_GET_ROWS && op->ne[1] >= 32;
    };
    use.event_new = [](ggml_backend_dev_t device) -> ggml_backend_event_t {
        return new ggml_backend_event{ device, nullptr };
    };
    use.event_free        = [](ggml_backend_dev_t, ggml_backend_event_t event) { delete event; };
    use.event_synchronize = [](ggml_backend_dev_t, ggml_backend_event_t) {};
}

registry & registry_of(family kind) {
    static const char * const NAMES[] = { "CUDA", "Vulkan", "MTL", "ROCm" };
    const char *              name    = NAMES[(int) kind];
    for (registry & known : registries) {
        if (known.name == name) {
            return known;
        }
    }
    registries.push_back({ name, {}, {} });
    registry & made                 = registries.back();
    made.reg.api_version            = GGML_BACKEND_API_VERSION;
    made.reg.context                = &made;
    made.reg.iface.get_name         = [](ggml_backend_reg_t reg) { return static_cast<registry *>(reg->context)->name; };
    made.reg.iface.get_device_count = [](ggml_backend_reg_t reg) {
        return static_cast<registry *>(reg->context)->devices.size();
    };
    made.reg.iface.get_device = [](ggml_backend_reg_t reg, size_t index) {
        return &static_cast<registry *>(reg->context)->devices[index]->device;
    };
    made.reg.iface.get_proc_address = [](ggml_backend_reg_t, const char *) -> void * { return nullptr; };
    return made;
}

} // namespace

const std::vector<ggml_backend_dev_t> & ms_phantom_devices() {
    return devices;
}

bool ms_phantoms_register(const ms_phantom * wanted, size_t count, ms_error * error) {
    return ms_guard(error, false, [&] {
        if (!phantoms.empty()) {
            throw std::runtime_error("phantom devices are registered already");
        }
        for (size_t i = 0; i < count; i++) {
            if (wanted[i].backend < 0 || wanted[i].backend > 3) {
                throw std::runtime_error("a phantom of an unknown backend");
            }
            const auto kind = (family) wanted[i].backend;
            phantoms.push_back({ wanted[i].name, kind, wanted[i].total, wanted[i].free, {}, {} });
            registry & home = registry_of(kind);
            fill(phantoms.back(), &home.reg);
            home.devices.push_back(&phantoms.back());
            devices.push_back(&phantoms.back().device);
        }
        for (registry & made : registries) {
            ggml_backend_register(&made.reg);
        }
        return true;
    });
}
