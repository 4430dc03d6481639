// A model with its context, as the other files of the shim see it.
#pragma once

#include "chat.h"
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

// llama.cpp's parameters of a context for these settings: the same that ms_model_open takes.
llama_context_params ms_context_params(const ms_settings & settings);
