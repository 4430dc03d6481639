// How a failure becomes text. Kept beside the shim's own header because Rust never sees it.
#pragma once

#include "shim.h"

#include <cstdio>
#include <exception>
#include <string>

inline void ms_copy(char * out, size_t capacity, const std::string & text) {
    std::snprintf(out, capacity, "%s", text.c_str());
}

inline void ms_fail(ms_error * error, const std::string & text) {
    if (error) {
        ms_copy(error->text, sizeof error->text, text);
    }
}

// Runs `body`; an exception becomes `error` and `otherwise`.
template <typename Body, typename Result> Result ms_guard(ms_error * error, Result otherwise, Body body) {
    try {
        return body();
    } catch (const std::exception & exception) {
        ms_fail(error, exception.what());
    } catch (...) {
        ms_fail(error, "an exception of no known kind");
    }
    return otherwise;
}
