// One chat completion: template, sampler, and the parsing of what is generated.

#include "error.h"
#include "model.h"

#include "sampling.h"

#include <algorithm>
#include <random>
#include <set>
#include <stdexcept>

struct ms_chat {
    common_chat_params        applied;
    common_chat_parser_params parser;
    common_sampler_ptr        sampler;
    std::vector<llama_token>  prompt;
    std::set<llama_token>     preserved;
    common_chat_msg           last;
    std::vector<std::string>  tool_call_ids;
};

namespace {

std::string new_tool_call_id() {
    static const char     LETTERS[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    static std::random_device random;
    std::string           id = "call_";
    for (int i = 0; i < 24; i++) {
        id += LETTERS[random() % (sizeof LETTERS - 1)];
    }
    return id;
}

common_params_sampling sampling_of(const ms_sampling & given) {
    common_params_sampling out;
    out.temp            = given.temperature;
    out.top_p           = given.top_p;
    out.min_p           = given.min_p;
    out.top_k           = given.top_k;
    out.penalty_repeat  = given.repeat_penalty;
    out.penalty_present = given.presence_penalty;
    out.penalty_freq    = given.frequency_penalty;
    out.seed            = given.random_seed ? LLAMA_DEFAULT_SEED : given.seed;
    out.no_perf         = true;
    return out;
}

// The grammar of an answer's shape, and what of the text switches it on.
void constrain(common_params_sampling & out, const common_chat_params & applied, const llama_vocab * vocab, bool has_tools) {
    if (!applied.grammar.empty()) {
        out.grammar = { has_tools ? COMMON_GRAMMAR_TYPE_TOOL_CALLS : COMMON_GRAMMAR_TYPE_OUTPUT_FORMAT, applied.grammar };
    }
    out.grammar_lazy      = applied.grammar_lazy;
    out.generation_prompt = applied.generation_prompt;
    for (const auto & text : applied.preserved_tokens) {
        const auto ids = common_tokenize(vocab, text, false, true);
        if (ids.size() == 1) {
            out.preserved_tokens.insert(ids[0]);
        }
    }
    for (common_grammar_trigger trigger : applied.grammar_triggers) {
        if (trigger.type == COMMON_GRAMMAR_TRIGGER_TYPE_WORD) {
            const auto ids = common_tokenize(vocab, trigger.value, false, true);
            if (ids.size() == 1) {
                trigger.type  = COMMON_GRAMMAR_TRIGGER_TYPE_TOKEN;
                trigger.token = ids[0];
                out.preserved_tokens.insert(ids[0]);
            }
        }
        out.grammar_triggers.push_back(trigger);
    }
    if (out.grammar_lazy && out.grammar_triggers.empty()) {
        out.grammar_lazy = false;
        out.grammar      = {};
    }
}

} // namespace

ms_chat * ms_chat_new(ms_model * model, const ms_chat_request * request, const ms_sampling * sampling, ms_error * error) {
    return ms_guard(error, (ms_chat *) nullptr, [&] {
        static const common_chat_tool_choice CHOICES[] = {
            COMMON_CHAT_TOOL_CHOICE_AUTO,
            COMMON_CHAT_TOOL_CHOICE_REQUIRED,
            COMMON_CHAT_TOOL_CHOICE_NONE,
        };
        common_chat_templates_inputs inputs;
        inputs.messages = common_chat_msgs_parse_oaicompat(common_json::parse(request->messages));
        if (request->tools) {
            inputs.tools = common_chat_tools_parse_oaicompat(common_json::parse(request->tools));
        }
        if (request->json_schema) {
            inputs.json_schema = request->json_schema;
        }
        inputs.tool_choice         = CHOICES[std::clamp(request->tool_choice, 0, 2)];
        inputs.parallel_tool_calls = request->parallel_tool_calls;
        inputs.reasoning_format    = COMMON_REASONING_FORMAT_AUTO;
        if (inputs.messages.empty()) {
            throw std::runtime_error("messages is empty");
        }

        auto chat                     = std::make_unique<ms_chat>();
        chat->applied                 = common_chat_templates_apply(model->templates.get(), inputs);
        chat->parser                  = common_chat_parser_params(chat->applied);
        chat->parser.reasoning_format = inputs.reasoning_format;
        chat->parser.parse_tool_calls = !inputs.tools.empty() && inputs.tool_choice != COMMON_CHAT_TOOL_CHOICE_NONE;
        if (!chat->applied.parser.empty()) {
            chat->parser.parser.load(chat->applied.parser);
        }

        const llama_vocab *    vocab  = llama_model_get_vocab(model->model);
        common_params_sampling params = sampling_of(*sampling);
        constrain(params, chat->applied, vocab, !inputs.tools.empty());
        chat->sampler.reset(common_sampler_init(model->model, params));
        if (!chat->sampler) {
            throw std::runtime_error("llama.cpp did not take the sampling parameters");
        }
        chat->preserved = params.preserved_tokens;
        chat->prompt    = common_tokenize(vocab, chat->applied.prompt, true, true);
        for (llama_token token : chat->prompt) {
            common_sampler_accept(chat->sampler.get(), token, false);
        }
        return chat.release();
    });
}

void ms_chat_free(ms_chat * chat) {
    delete chat;
}

size_t ms_chat_prompt_length(const ms_chat * chat) {
    return chat->prompt.size();
}

const int32_t * ms_chat_prompt(const ms_chat * chat) {
    return chat->prompt.data();
}

const char * ms_chat_stop(const ms_chat * chat, size_t index) {
    return index < chat->applied.additional_stops.size() ? chat->applied.additional_stops[index].c_str() : nullptr;
}

int32_t ms_chat_sample(ms_chat * chat, ms_model * model, int32_t index) {
    return ms_guard(nullptr, (int32_t) -1, [&] {
        const llama_token token = common_sampler_sample(chat->sampler.get(), model->context, index);
        common_sampler_accept(chat->sampler.get(), token, true);
        return token;
    });
}

int32_t ms_chat_piece(const ms_chat * chat, const ms_model * model, int32_t token, char * out, int32_t capacity) {
    return ms_guard(nullptr, (int32_t) 0, [&] {
        const bool keep = chat->preserved.count(token) > 0;
        return llama_token_to_piece(llama_model_get_vocab(model->model), token, out, capacity, 0, keep);
    });
}

bool ms_chat_parse(ms_chat * chat, const char * text, size_t length, bool partial, ms_difference difference, void * user) {
    return ms_guard(nullptr, false, [&] {
        common_chat_msg now = common_chat_parse(std::string(text, length), partial, chat->parser);
        if (now.empty()) {
            return true; // nothing that could be told yet
        }
        now.set_tool_call_ids(chat->tool_call_ids, new_tool_call_id);
        for (const auto & step : common_chat_msg_diff::compute_diffs(chat->last, now)) {
            const bool has_call = step.tool_call_index != std::string::npos;
            const auto & call   = step.tool_call_delta;
            difference(
                user, step.content_delta.data(), step.content_delta.size(), step.reasoning_content_delta.data(),
                step.reasoning_content_delta.size(), has_call ? (int32_t) step.tool_call_index : -1, call.id.c_str(),
                call.name.c_str(), call.arguments.data(), call.arguments.size());
        }
        chat->last = now;
        return true;
    });
}
