//! Windows: display adapters of DXGI and of the registry, power and session. Calls are behind `cfg(windows)`; what reads
//! their answers is not.
