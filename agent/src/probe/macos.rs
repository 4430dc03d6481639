//! macOS: devices of Metal, the model and the power source. Calls are behind `cfg(target_os = "macos")`; what reads their
//! answers is not.
