// A model with its context, as the other files of the shim see it.
#pragma once

#include "chat.h"
#include "llama.h"

struct ms_model {
    llama_model *             model   = nullptr;
    llama_context *           context = nullptr;
    struct ggml_threadpool *  pool    = nullptr;
    common_chat_templates_ptr templates;
    uint32_t                  threads      = 0;
    uint32_t                  gpu_layers   = 0;
    bool                      has_template = false;

    ~ms_model();
};
