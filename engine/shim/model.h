// A model with its context, as the other files of the shim see it.
#pragma once

#include "chat.h"
#include "ggml-backend-impl.h"
#include "llama.h"
#include "llama-memory.h"
#include "shim.h"

#include <memory>
#include <vector>

#include <string>
#include <utility>
#include <vector>

struct ms_model {
    llama_model *             model   = nullptr;
    llama_context *           context = nullptr;
    struct ggml_threadpool *  pool    = nullptr;
    common_chat_templates_ptr templates;
    uint32_t                  threads      = 0;
    uint32_t                  gpu_layers   = 0;
    uint32_t                  expert_layers_on_host = 0;
    uint32_t                  fit                   = 0; // ms_model_facts::fit
    std::vector<float>        split;                     // layers on each device
    // Pattern and device of each tensor override that expert_layers_on_host does not say.
    std::vector<std::pair<std::string, std::string>> overrides;
    bool                      has_template = false;
    // The KV cache of the last ms_model_reserve, and what it was made for.
    std::unique_ptr<llama_memory_i> memory;
    std::vector<uint32_t>           memory_key;

    ~ms_model();
};

// A recurrent state is allocated and cleared even to count, which on the host would be real memory, gigabytes of it for
// sixteen sequences. While this lives, the host allocates nothing.
struct ms_without_host_memory {
    ggml_backend_buffer_type_t   host     = ggml_backend_cpu_buffer_type();
    ggml_backend_buffer_type_i   original = host->iface;

    ms_without_host_memory() {
        host->iface.alloc_buffer = [](ggml_backend_buffer_type_t type, size_t size) {
            ggml_backend_buffer_i buffer = {};
            // Nothing is ever stored there: any address that is not null and is aligned does.
            buffer.get_base      = [](ggml_backend_buffer_t) { return reinterpret_cast<void *>(0x1000); };
            buffer.memset_tensor = [](ggml_backend_buffer_t, ggml_tensor *, uint8_t, size_t, size_t) {};
            buffer.clear         = [](ggml_backend_buffer_t, uint8_t) {};
            return ggml_backend_buffer_init(type, buffer, nullptr, size);
        };
    }
    ~ms_without_host_memory() { host->iface = original; }
};

// llama.cpp's parameters of a context for these settings: the same that ms_model_open takes.
llama_context_params ms_context_params(const ms_settings & settings);
