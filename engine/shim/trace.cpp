// What the allocator of compute buffers is asked for by the graph that was reserved last.
//
// ggml's graph allocator walks a graph and asks a second allocator, that of pieces of a buffer, for memory and gives it back.
// The walk is upstream's own text here, and the allocator of pieces one that only says what it is asked. Its rules (first
// the best hole, then the end) are in `src/profile/allocator.rs`, which is compared with llama.cpp's sizes for every trace.

#include "error.h"
#include "model.h"

#include "ggml-backend-impl.h"
#include "ggml-impl.h"
#include "llama-context.h"

#include <cassert>
#include <cstring>
#include <algorithm>
#include <stdexcept>
#include <unordered_map>
#include <vector>

// Of the same names as ggml's own, whose layout the scheduler's has.
namespace {
namespace traced {

struct ggml_backend_sched_split;
struct ggml_gallocr;
using ggml_gallocr_t = ggml_gallocr *;

#include "upstream_allocation.inc"

// Pieces have numbers, and an address is a piece's number with nothing beside it.
struct ggml_dyn_tallocr {
    ms_on_trace on_trace;
    void *      user;
    uint32_t    index;
    uint32_t *  pieces;
};

struct all_tensors {
    size_t size = 0;
};

struct ggml_gallocr {
    std::vector<ggml_backend_buffer_type_t> bufts;
    std::vector<ggml_dyn_tallocr *>         buf_tallocs;
    all_tensors                             hash_set;
    hash_node *                             hash_values = nullptr;

    std::unordered_map<const ggml_tensor *, hash_node> nodes;
};

void ggml_hash_set_reset(all_tensors *) {}

hash_node * ggml_gallocr_hash_get(ggml_gallocr_t galloc, ggml_tensor * tensor) {
    return &galloc->nodes[tensor];
}

buffer_address ggml_dyn_tallocr_alloc(ggml_dyn_tallocr * alloc, size_t size, const ggml_tensor * tensor) {
    const uint32_t piece = (*alloc->pieces)++;
    alloc->on_trace(alloc->user, MS_TRACE_ALLOCATE, alloc->index, piece, size, tensor->name);
    return { (int) piece, 0 };
}

void ggml_dyn_tallocr_free_bytes(ggml_dyn_tallocr * alloc, buffer_address address, size_t size) {
    alloc->on_trace(alloc->user, MS_TRACE_FREE, alloc->index, (uint32_t) address.chunk, size, "");
}

void ggml_gallocr_free_extra_space(ggml_gallocr_t galloc, ggml_tensor * node, ggml_tensor * parent) {
    const hash_node *  place = ggml_gallocr_hash_get(galloc, node);
    const hash_node *  from  = ggml_gallocr_hash_get(galloc, parent);
    ggml_dyn_tallocr * alloc = galloc->buf_tallocs[from->buffer_id];
    const size_t       size  = ggml_backend_buft_get_alloc_size(galloc->bufts[place->buffer_id], node);
    alloc->on_trace(alloc->user, MS_TRACE_SHRINK, alloc->index, (uint32_t) from->addr.chunk, size, "");
}

#include "upstream_allocation_order.inc"

} // namespace traced
} // namespace

bool ms_model_trace(ms_model * model, ms_on_trace on_trace, void * user, ms_error * error) {
    return ms_guard(error, false, [&] {
        if (!model->context) {
            throw std::runtime_error("only a model that is opened to count has a trace");
        }
        // Its definition is upstream's own, only not in any header.
        auto * sched = reinterpret_cast<traced::ggml_backend_sched *>(model->context->get_sched());
        const int      devices = std::max(0, llama_model_n_devices(model->model));
        uint32_t       pieces  = 0;
        traced::ggml_gallocr galloc;
        std::vector<traced::ggml_dyn_tallocr> tallocs(sched->n_backends);
        for (int i = 0; i < sched->n_backends; i++) {
            ggml_backend_buffer_type_t type = sched->bufts[i];
            galloc.bufts.push_back(type);
            tallocs[i] = { on_trace, user, (uint32_t) i, &pieces };
            int same = 0;
            while (sched->bufts[same] != type) {
                same++;
            }
            galloc.buf_tallocs.push_back(&tallocs[same]);
            on_trace(user, MS_TRACE_PLACE, i, i < devices ? 1 + i : 0, 0, "");
            on_trace(user, MS_TRACE_ALIGNMENT, i, 0, ggml_backend_buft_get_alignment(type), "");
            on_trace(user, MS_TRACE_MAXIMUM, i, 0, ggml_backend_buft_get_max_size(type), "");
        }
        traced::ggml_gallocr_alloc_graph_impl(&galloc, &sched->graph, sched->node_backend_ids, sched->leaf_backend_ids);
        return true;
    });
}
