// What a sizing profile is made of: many contexts on one model that was opened without allocating, and what each of its
// tensors takes where it lies.
//
// A context of llama.cpp builds ten graphs when it is made. A profile needs hundreds of answers, so it makes one context and
// asks that for one graph at a time, with another KV cache. The tests compare the answers with those of whole contexts.

#include "error.h"
#include "model.h"

#include "ggml-backend-impl.h"
#include "ggml-backend.h"
#include "llama-context.h"
#include "llama-ext.h"
#include "llama-memory-hybrid-idx.h"
#include "llama-memory-hybrid-iswa.h"
#include "llama-memory-hybrid.h"
#include "llama-memory-recurrent.h"
#include "llama-model.h"

#include <algorithm>
#include <map>
#include <stdexcept>
#include <vector>

namespace {

// Asks a buffer type what each tensor takes by standing in its place for a moment. One recording at a time: a worker's
// jobs have one thread.
struct recording {
    ms_on_tensor                                                      on_tensor;
    void *                                                            user;
    std::map<ggml_backend_buffer_type_t, ggml_backend_buffer_type_i>  originals;
    std::map<ggml_backend_buffer_type_t, int32_t>                     places;
};

recording * current = nullptr;

size_t original_size(ggml_backend_buffer_type_t type, const ggml_tensor * tensor) {
    const auto & original = current->originals.at(type);
    return original.get_alloc_size ? original.get_alloc_size(type, tensor) : ggml_nbytes(tensor);
}

size_t recorded_size(ggml_backend_buffer_type_t type, const ggml_tensor * tensor) {
    const size_t size      = original_size(type, tensor);
    const size_t alignment = std::max<size_t>(1, ggml_backend_buft_get_alignment(type));
    current->on_tensor(current->user, current->places.at(type), tensor->name, (size + alignment - 1) / alignment * alignment);
    return size;
}

// Where a buffer type lies: 0 for the host, else 1 + the model's device.
int32_t place_of(const ms_model & model, ggml_backend_buffer_type_t type) {
    ggml_backend_dev_t device = ggml_backend_buft_is_host(type) ? nullptr : ggml_backend_buft_get_device(type);
    const int          count  = std::max(0, llama_model_n_devices(model.model));
    for (int i = 0; device && i < count; i++) {
        if (device == llama_model_get_device(model.model, i)) {
            return 1 + i;
        }
    }
    return 0;
}

// The recurrent part of a memory, null where it has none.
const llama_memory_recurrent * recurrent_of(const llama_memory_i * memory) {
    if (const auto * hybrid = dynamic_cast<const llama_memory_hybrid *>(memory)) {
        return hybrid->get_mem_recr();
    }
    if (const auto * hybrid = dynamic_cast<const llama_memory_hybrid_iswa *>(memory)) {
        return hybrid->get_mem_recr();
    }
    if (const auto * hybrid = dynamic_cast<const llama_memory_hybrid_idx *>(memory)) {
        return hybrid->get_mem_recr();
    }
    return dynamic_cast<const llama_memory_recurrent *>(memory);
}

} // namespace

bool ms_model_try(ms_model * model, const ms_settings * settings, bool * flash_attention, ms_error * error) {
    return ms_guard(error, false, [&] {
        if (!settings->no_alloc) {
            throw std::runtime_error("only a model that is opened to count is asked for another context");
        }
        llama_context * made = llama_init_from_model(model->model, ms_context_params(*settings));
        if (!made) {
            ms_error said = {};
            ms_take_errors(&said);
            throw std::runtime_error(said.text[0] ? said.text : "llama.cpp did not make a context and said no reason");
        }
        *flash_attention = made->get_cparams().flash_attn;
        llama_free(made);
        return true;
    });
}

bool ms_model_reserve(
        ms_model * model, const ms_settings * settings, const ms_shape * shape, ms_reserved * out, size_t capacity, ms_error * error) {
    return ms_guard(error, false, [&] {
        if (!model->context || !settings->no_alloc) {
            throw std::runtime_error("only a model that is opened to count is asked for another context");
        }
        const llama_context_params params = ms_context_params(*settings);
        // The context keeps its model, its scheduler and its devices; only what the graph and the memory read is changed,
        // to what its constructor would have made of `params`.
        auto & use           = const_cast<llama_cparams &>(model->context->get_cparams());
        use.n_ctx            = shape->cells * shape->streams;
        use.n_ctx_seq        = shape->cells;
        use.n_batch          = use.causal_attn ? std::min(use.n_ctx, params.n_batch) : params.n_batch;
        use.n_ubatch         = std::min(use.n_batch, params.n_ubatch);
        use.n_seq_max        = params.n_seq_max;
        use.kv_unified       = params.kv_unified;
        if (params.flash_attn_type != LLAMA_FLASH_ATTN_TYPE_AUTO) {
            use.flash_attn = params.flash_attn_type == LLAMA_FLASH_ATTN_TYPE_ENABLED;
        }

        // A memory of many cells takes longer to make than a graph, so the last one is kept.
        const std::vector<uint32_t> key = {
            shape->cells, shape->streams, params.n_seq_max, params.kv_unified, (uint32_t) settings->kv_type, use.flash_attn,
            model->model->hparams.swa_type == LLAMA_SWA_TYPE_NONE ? 0 : use.n_ubatch,
        };
        if (key != model->memory_key) {
            model->memory.reset();
            const llama_memory_params wanted = {
                /*.type_k    =*/ params.type_k,
                /*.type_v    =*/ params.type_v,
                /*.swa_full  =*/ params.swa_full,
                /*.ctx_type  =*/ use.ctx_type,
                /*.mem_other =*/ nullptr,
            };
            const ms_without_host_memory counted;
            model->memory.reset(model->model->create_memory(wanted, use));
            model->memory_key = key;
        }

        ggml_backend_sched_t     sched   = model->context->get_sched();
        const size_t             count   = (size_t) ggml_backend_sched_get_n_backends(sched);
        const size_t             devices = (size_t) std::max(0, llama_model_n_devices(model->model));
        std::vector<size_t>      sizes(std::max(count, devices + 1), 0);
        llama_memory_context_ptr whole;
        if (model->memory) {
            whole = model->memory->init_full();
        }
        if (!model->context->graph_reserve(shape->tokens, params.n_seq_max, shape->outputs, whole.get(), true, sizes.data())) {
            throw std::runtime_error("llama.cpp did not build the graph");
        }
        std::fill_n(out, capacity, ms_reserved {});
        // The scheduler's backends are the model's devices in their order, then accelerators and the CPU.
        for (size_t i = 0; i < count; i++) {
            const size_t place = i < devices ? 1 + i : 0;
            if (place < capacity) {
                out[place].compute += sizes[i];
            }
        }
        if (model->memory) {
            for (const auto & [type, bytes] : model->memory->memory_breakdown()) {
                const size_t place = (size_t) place_of(*model, type);
                if (place < capacity) {
                    out[place].context += bytes;
                }
            }
        }
        return true;
    });
}

bool ms_model_tensors(ms_model * model, ms_on_tensor on_tensor, void * user, ms_error * error) {
    return ms_guard(error, false, [&] {
        recording now = { on_tensor, user, {}, {} };
        const auto * memory = model->memory ? model->memory.get() : model->context->get_memory();
        auto         types  = model->model->memory_breakdown();
        if (memory) {
            types.merge(memory->memory_breakdown());
        }
        for (const auto & [type, used] : types) {
            now.places[type]           = place_of(*model, type);
            now.originals[type]        = type->iface;
            type->iface.get_alloc_size = recorded_size;
        }
        current = &now;
        model->model->memory_breakdown();
        if (memory) {
            memory->memory_breakdown();
        }
        current = nullptr;
        for (const auto & [type, original] : now.originals) {
            type->iface = original;
        }
        // A recurrent state is allocated when it is made, even to count, so nobody asks for its size again.
        if (const auto * recurrent = recurrent_of(memory)) {
            for (const auto * tensors : { &recurrent->r_l, &recurrent->s_l, &recurrent->p_l }) {
                for (const ggml_tensor * tensor : *tensors) {
                    if (tensor && tensor->buffer) {
                        ggml_backend_buffer_type_t type = ggml_backend_buffer_get_type(tensor->buffer);
                        const size_t alignment = std::max<size_t>(1, ggml_backend_buft_get_alignment(type));
                        const size_t size      = ggml_backend_buft_get_alloc_size(type, tensor);
                        on_tensor(user, place_of(*model, type), tensor->name, (size + alignment - 1) / alignment * alignment);
                    }
                }
            }
        }
        return true;
    });
}

void ms_model_sizing_facts(const ms_model * model, ms_sizing_facts * out) {
    *out = {};
    ms_guard(nullptr, false, [&] {
        const auto & hparams = model->model->hparams;
        out->blocks          = hparams.n_layer_all;
        out->window          = hparams.swa_type == LLAMA_SWA_TYPE_NONE ? 0 : hparams.n_swa;
        out->causal          = hparams.causal_attn;
        out->all_outputs     = llama_model_has_encoder(model->model);
        if (model->context) {
            out->cache           = model->context->get_memory() != nullptr;
        }
        return true;
    });
}
