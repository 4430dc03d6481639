// Scoring: a model opened for the logits of many tokens of one text at once, which answering never needs.

#include "error.h"

#include "common.h"
#include "llama.h"

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <vector>

struct ms_scorer {
    llama_model *   model   = nullptr;
    llama_context * context = nullptr;

    ~ms_scorer() {
        if (context) {
            llama_free(context);
        }
        if (model) {
            llama_model_free(model);
        }
    }
};

namespace {

std::runtime_error failed(const char * otherwise) {
    ms_error said = {};
    ms_take_errors(&said);
    return std::runtime_error(said.text[0] ? said.text : otherwise);
}

const llama_vocab * vocabulary(const ms_scorer * scorer) {
    return llama_model_get_vocab(scorer->model);
}

} // namespace

ms_scorer * ms_scorer_open(
        const char * path, const ms_scorer_settings * settings, ms_progress progress, void * user, ms_error * error) {
    return ms_guard(error, (ms_scorer *) nullptr, [&] {
        const int threads = std::min<int>(
            settings->threads ? (int) settings->threads : std::max(1, common_cpu_get_num_math()), GGML_MAX_N_THREADS);
        ggml_backend_dev_t no_devices[]   = { nullptr };
        llama_model_params model          = llama_model_default_params();
        model.n_gpu_layers                = settings->gpu_layers;
        model.load_mode                   = LLAMA_LOAD_MODE_MMAP;
        model.use_extra_bufts             = true; // as the desk will run it
        model.progress_callback           = progress;
        model.progress_callback_user_data = user;
        if (settings->gpu_layers == 0) {
            model.devices = no_devices;
        }
        auto opened   = std::make_unique<ms_scorer>();
        opened->model = llama_model_load_from_file(path, model);
        if (!opened->model) {
            throw failed("llama.cpp did not load the model and said no reason");
        }
        llama_context_params context = llama_context_default_params();
        context.n_ctx                = settings->context;
        context.n_batch              = settings->batch;
        context.n_ubatch             = settings->batch;
        context.n_seq_max            = 1;
        context.n_outputs_max        = settings->outputs;
        context.n_threads            = threads;
        context.n_threads_batch      = threads;
        context.swa_full             = false;
        context.no_perf              = true;
        opened->context              = llama_init_from_model(opened->model, context);
        if (!opened->context) {
            throw failed("llama.cpp did not make a context and said no reason");
        }
        return opened.release();
    });
}

void ms_scorer_close(ms_scorer * scorer) {
    ms_guard(nullptr, false, [&] {
        delete scorer;
        return true;
    });
}

void ms_scorer_vocabulary(const ms_scorer * scorer, ms_vocabulary * out) {
    *out = {};
    ms_guard(nullptr, false, [&] {
        out->tokens  = (uint32_t) std::max(0, llama_vocab_n_tokens(vocabulary(scorer)));
        out->bos     = llama_vocab_bos(vocabulary(scorer));
        out->add_bos = llama_vocab_get_add_bos(vocabulary(scorer));
        out->add_eos = llama_vocab_get_add_eos(vocabulary(scorer));
        return true;
    });
}

int64_t ms_scorer_tokenize(
        const ms_scorer * scorer, const char * text, size_t length, bool special, int32_t * out, size_t capacity,
        ms_error * error) {
    return ms_guard(error, (int64_t) -1, [&]() -> int64_t {
        if (length > INT32_MAX) {
            throw std::runtime_error("the text is too long");
        }
        std::vector<llama_token> tokens(length + 2); // no token is shorter than a byte; two are added at most
        int32_t count = llama_tokenize(
            vocabulary(scorer), text, (int32_t) length, tokens.data(), (int32_t) tokens.size(), true, special);
        if (count < 0 && count != INT32_MIN) {
            tokens.resize((size_t) -(int64_t) count);
            count = llama_tokenize(
                vocabulary(scorer), text, (int32_t) length, tokens.data(), (int32_t) tokens.size(), true, special);
        }
        if (count < 0) {
            throw std::runtime_error("llama.cpp cannot tokenize the text");
        }
        std::copy_n(tokens.begin(), std::min(capacity, (size_t) count), out);
        return count;
    });
}

void ms_scorer_clear(ms_scorer * scorer) {
    ms_guard(nullptr, false, [&] {
        if (llama_memory_t memory = llama_get_memory(scorer->context)) {
            llama_memory_clear(memory, true);
        }
        return true;
    });
}

bool ms_scorer_decode(
        ms_scorer * scorer, const int32_t * tokens, size_t count, int32_t position, size_t first_scored, ms_error * error) {
    return ms_guard(error, false, [&] {
        std::vector<llama_token>    ids(tokens, tokens + count);
        std::vector<llama_pos>      positions(count);
        std::vector<int32_t>        lengths(count, 1);
        llama_seq_id                sequence = 0;
        std::vector<llama_seq_id *> sequences(count, &sequence);
        std::vector<int8_t>         logits(count);
        for (size_t i = 0; i < count; i++) {
            positions[i] = position + (llama_pos) i;
            logits[i]    = i >= first_scored;
        }
        llama_batch batch = {};
        batch.n_tokens    = (int32_t) count;
        batch.token       = ids.data();
        batch.pos         = positions.data();
        batch.n_seq_id    = lengths.data();
        batch.seq_id      = sequences.data();
        batch.logits      = logits.data();
        const int32_t status = llama_decode(scorer->context, batch);
        if (status != 0) {
            throw failed(status == 1 ? "no room in the KV cache" : "llama_decode failed");
        }
        llama_synchronize(scorer->context);
        return true;
    });
}

const float * ms_scorer_logits(ms_scorer * scorer) {
    return ms_guard(nullptr, (const float *) nullptr, [&] { return (const float *) llama_get_logits(scorer->context); });
}
