// What the log of llama.cpp tells of a quantization that is running.
#pragma once

// A piece of the log, as llama.cpp wrote it.
void ms_quantize_line(const char * text);
