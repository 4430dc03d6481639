#include "overrides.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

namespace {

constexpr const char * START = "blk\\.";

// The layer and the rest of `blk\.12\.ffn_down.*`; false for a pattern of another kind.
bool of_layer(const char * pattern, uint32_t & layer, std::string & rest) {
    if (std::strncmp(pattern, START, std::strlen(START)) != 0) {
        return false;
    }
    const char * digits = pattern + std::strlen(START);
    const char * end    = digits;
    while (*end >= '0' && *end <= '9') {
        end++;
    }
    // More digits are no layer; what follows the number must end it.
    if (end == digits || end - digits > 6 || std::strncmp(end, "\\.", 2) != 0) {
        return false;
    }
    layer = (uint32_t) std::stoul(std::string(digits, end));
    rest  = end;
    return true;
}

} // namespace

void ms_overrides::set(const std::vector<std::pair<std::string, ggml_backend_buffer_type_t>> & wanted) {
    patterns.clear();
    entries.clear();
    for (const auto & [pattern, type] : wanted) {
        patterns.push_back(pattern);
    }
    for (size_t i = 0; i < wanted.size(); i++) {
        entries.push_back({ patterns[i].c_str(), wanted[i].second });
    }
    entries.push_back({ nullptr, nullptr });
}

std::string ms_layer_numbers(const std::vector<uint32_t> & layers) {
    const std::set<uint32_t> wanted(layers.begin(), layers.end());
    std::string              pattern;
    const auto               add = [&](const std::string & one) { pattern += (pattern.empty() ? "" : "|") + one; };
    for (auto layer = wanted.begin(); layer != wanted.end();) {
        const uint32_t first = *layer;
        // A class of digits would say it exactly, but takes libstdc++ longer to compile than all of the rest. Nothing but a
        // digit stands there in a name.
        const auto last = wanted.find(first + 9);
        if (first % 10 == 0 && last != wanted.end() && std::distance(layer, last) == 9) {
            add((first ? std::to_string(first / 10) : "") + ".");
            layer = std::next(last);
        } else {
            add(std::to_string(first));
            layer++;
        }
    }
    return pattern;
}

void ms_merge_overrides(const llama_model_tensor_buft_override * given, ms_overrides & out) {
    std::vector<std::pair<std::string, ggml_backend_buffer_type_t>> merged;
    while (given->pattern) {
        uint32_t    layer = 0;
        std::string rest;
        if (!of_layer(given->pattern, layer, rest)) {
            merged.emplace_back(given->pattern, given->buft);
            given++;
            continue;
        }
        std::vector<uint32_t> layers;
        const auto            type = given->buft;
        std::string           other;
        for (uint32_t next = 0; given->pattern && given->buft == type && of_layer(given->pattern, next, other) && other == rest; given++) {
            layers.push_back(next);
        }
        merged.emplace_back(layers.size() == 1 ? START + std::to_string(layer) + rest : START + ("(" + ms_layer_numbers(layers) + ")") + rest, type);
    }
    out.set(merged);
}
